"""
Django with django-oauth-toolkit, whose views, models and validators are used as they come: this file is its settings, one
person, one client, an API that asks for a token, and a count of the requests for tokens.

Run in an empty folder, by the Python that has the package. One argument, JSON:
{"port", "redirect_uri", "client_id", "client_secret", "access_life_seconds"}
"""

import json
import secrets
import sys
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import django
from django.conf import settings

given = json.loads(sys.argv[1])

settings.configure(
    SECRET_KEY=secrets.token_hex(),
    ALLOWED_HOSTS=["127.0.0.1"],
    ROOT_URLCONF=__name__,
    DEFAULT_AUTO_FIELD="django.db.models.AutoField",
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": "database", "OPTIONS": {"timeout": 600}}},
    INSTALLED_APPS=[
        "django.contrib.auth",
        "django.contrib.contenttypes",
        "django.contrib.sessions",
        "django.contrib.messages",
        "oauth2_provider",
    ],
    MIDDLEWARE=[
        f"{__name__}.count_requests",
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.middleware.csrf.CsrfViewMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        f"{__name__}.sign_in",
    ],
    TEMPLATES=[
        {
            "BACKEND": "django.template.backends.django.DjangoTemplates",
            "APP_DIRS": True,
            "OPTIONS": {"context_processors": ["django.template.context_processors.request"]},
        }
    ],
    OAUTH2_PROVIDER={
        "ACCESS_TOKEN_EXPIRE_SECONDS": given["access_life_seconds"],
        "PKCE_REQUIRED": True,
        "SCOPES": {"read": "Read", "write": "Write"},
    },
    USE_TZ=True,
)
django.setup()

from django.contrib.auth.models import User  # noqa: E402
from django.core.management import call_command  # noqa: E402
from django.core.wsgi import get_wsgi_application  # noqa: E402
from django.http import HttpResponse, JsonResponse  # noqa: E402
from django.urls import include, path  # noqa: E402
from django.views.decorators.csrf import csrf_exempt  # noqa: E402
from oauth2_provider.models import RefreshToken  # noqa: E402
from oauth2_provider.views.generic import ProtectedResourceView  # noqa: E402

requests = []


def count_requests(get_response):
    def count(request):
        if request.path not in ("/o/token/", "/o/revoke_token/"):
            return get_response(request)
        counted = {"path": request.path, "grant_type": request.POST.get("grant_type")}
        requests.append(counted)
        response = get_response(request)
        counted.update(status=response.status_code, body=response.content.decode())
        return response

    return count


def sign_in(get_response):
    """Everybody who comes to be asked for consent is the one person."""

    def signed_in(request):
        if request.path == "/o/authorize/":
            request.user = User.objects.get(username="ada")
        return get_response(request)

    return signed_in


class Whoami(ProtectedResourceView):
    def get(self, request):
        return JsonResponse({"name": request.resource_owner.username})


@csrf_exempt
def end_grants(request):
    """What "Revoke" on the person's own page of authorized applications does, for all of them."""
    for token in RefreshToken.objects.filter(revoked=None):
        token.revoke()
    return HttpResponse(status=204)


urlpatterns = [
    path("o/", include("oauth2_provider.urls", namespace="oauth2_provider")),
    path("whoami", Whoami.as_view()),
    path("ours/requests", lambda request: JsonResponse({"requests": requests})),
    path("ours/end-grants", end_grants),
]


class Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class Handler(WSGIRequestHandler):
    def log_message(self, *arguments):
        pass


call_command("migrate", verbosity=0)
User.objects.create_user("ada")
call_command(
    "createapplication",
    "confidential",
    "authorization-code",
    client_id=given["client_id"],
    client_secret=given["client_secret"],
    redirect_uris=given["redirect_uri"],
    verbosity=0,
)
make_server("127.0.0.1", given["port"], get_wsgi_application(), Server, Handler).serve_forever()
