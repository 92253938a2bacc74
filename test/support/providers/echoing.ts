import { basicCredentials, type Call, everyField } from "./call.ts";
import { GenericProvider } from "./generic.ts";
import type { Answer, Route } from "./route.ts";
import type { DefinitionFile } from "./strict-server.ts";

/** Which part of a request comes back, and in what kind of answer. */
export type Echo = { part: keyof typeof parts; as: keyof typeof answers };

const parts = {
  fields: (call: Call) => Object.values(everyField(call)).join(" / "),
  body: (call: Call) => call.body,
  header: (call: Call) => call.headers["authorization"] ?? "",
  secret: (call: Call) => basicCredentials(call)?.secret ?? "",
};

const answers = {
  refusal: (said: string) => ({ status: 400, body: { error: "temporarily_unavailable", error_description: said } }),
  "dead grant": (said: string) => ({ status: 400, body: { error: "invalid_grant", error_description: said } }),
  "client refused": (said: string) => ({ status: 401, body: { error: "invalid_client", error_description: said } }),
  "odd error code": (said: string) => ({ status: 400, body: { error: said, message: said } }),
  "problem in a list": (said: string) => ({ status: 422, body: { errors: [{ title: said, detail: said }] } }),
  "error with 200": (said: string) => ({ status: 200, body: { error: "invalid_request", error_description: said } }),
  "page with 200": (said: string) => ({ status: 200, body: `<h1>Something went wrong</h1><pre>${said}</pre>` }),
  "page with 500": (said: string) => ({ status: 500, body: `<h1>Traceback</h1><pre>${said}</pre>` }),
  "text with 500": (said: string) => ({ status: 500, body: `TypeError at ${said}` }),
  "text with 400": (said: string) => ({ status: 400, body: said, headers: { "content-type": "text/plain" } }),
} satisfies Record<string, (said: string) => Answer>;

const refuseRevocation = (call: Call): Answer => answers.refusal(parts.fields(call));

/** Every part in every kind of answer. */
export const everyEcho: readonly Echo[] = (Object.keys(parts) as Echo["part"][]).flatMap((part) =>
  (Object.keys(answers) as Echo["as"][]).map((as) => ({ part, as })),
);

/** A strict server some of whose errors repeat the secrets that they are about, as those of real ones do. */
export class EchoingProvider extends GenericProvider {
  #next: Echo[] = [];

  /** Gives these answers to the next token requests, and does nothing that they ask for. */
  echoNext(...echoes: Echo[]): void {
    this.#next.push(...echoes);
  }

  override definitions(): DefinitionFile[] {
    const revocation = { url: `${this.origin}/revoke` };
    return super.definitions().map((definition) => Object.assign(definition, { revocation }));
  }

  protected override routes(): Route[] {
    return [
      ...super.routes().map((route) => this.#wrap(route)),
      { method: "POST", path: "/revoke", endpoint: "revoke", handle: refuseRevocation },
    ];
  }

  #wrap(route: Route): Route {
    if (route.endpoint !== "token") return route;
    return { ...route, handle: (call) => this.#echo(call) ?? route.handle(call) };
  }

  #echo(call: Call): Answer | undefined {
    const echo = this.#next.shift();
    return echo && answers[echo.as](parts[echo.part](call));
  }
}
