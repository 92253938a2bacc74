import { execFile } from "node:child_process";
import { randomBytes } from "node:crypto";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { request } from "undici";
import { temporaryFolder } from "../../../support/services/guardian.ts";
import { startProgramServer } from "../../../support/services/program-server.ts";
import type { ForeignServer, Registration, TokenRequest } from "./foreign-server.ts";

const run = promisify(execFile);
const program = fileURLToPath(new URL("django_server.py", import.meta.url));

/** The Python that has django-oauth-toolkit: Debian's own, or the one on the PATH. */
export async function pythonWithToolkit(): Promise<string | undefined> {
  const find =
    "import importlib.util as u, sys; sys.exit(not (u.find_spec('django') and u.find_spec('oauth2_provider')))";
  for (const python of ["/usr/bin/python3", "python3"]) {
    const has = await run(python, ["-c", find]).then(
      () => true,
      () => false,
    );
    if (has) return python;
  }
  return undefined;
}

/** django-oauth-toolkit in a process of its own, on SQLite in a folder of its own. */
export async function startDjango(python: string, registration: Registration): Promise<ForeignServer> {
  const { port, redirectUri, accessLifeSeconds } = registration;
  const client = { id: "broker", secret: randomBytes(24).toString("hex") };
  const origin = `http://127.0.0.1:${port}`;
  const given = {
    port,
    redirect_uri: redirectUri,
    client_id: client.id,
    client_secret: client.secret,
    access_life_seconds: accessLifeSeconds,
  };
  const requests = async () =>
    ((await (await request(`${origin}/ours/requests`)).body.json()) as { requests: TokenRequest[] }).requests;
  const folder = await temporaryFolder("django");
  const server = await startProgramServer({
    url: origin,
    command: python,
    args: ["-B", program, JSON.stringify(given)],
    folder,
    logFile: join(folder.path, "log"),
    owner: {},
    stopSignal: "SIGTERM",
    ping: async () => void (await requests()),
  });
  return {
    client,
    definition: {
      id: "django",
      extends: "oauth2",
      name: "django-oauth-toolkit",
      docs: "https://django-oauth-toolkit.readthedocs.io/",
      grants: ["authorization_code"],
      authorization: { url: `${origin}/o/authorize/`, pkce: "required", scope: { default: ["read"] } },
      token: { url: `${origin}/o/token/`, client_auth: "basic", encoding: "form" },
      // ROTATE_REFRESH_TOKEN is on and REFRESH_TOKEN_GRACE_PERIOD_SECONDS is 0, unless a site sets them.
      refresh: { rotation: "always", reuse: "dead", old_access_token_dies: true },
      revocation: { url: `${origin}/o/revoke_token/`, token: "refresh_token", kills: "all" },
      api: { base_url: origin },
    },
    requests,
    endGrants: async () => void (await request(`${origin}/ours/end-grants`, { method: "POST" })),
    async ask(accessToken) {
      const answer = await request(`${origin}/whoami`, { headers: { authorization: `Bearer ${accessToken}` } });
      await answer.body.dump();
      return answer.statusCode;
    },
    [Symbol.asyncDispose]: () => server[Symbol.asyncDispose](),
  };
}
