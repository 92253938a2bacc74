import { generateKeyPairSync } from "node:crypto";
import { once } from "node:events";
import { writeFile } from "node:fs/promises";
import http from "node:http";
import https from "node:https";
import type { AddressInfo } from "node:net";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { type BrokerProcess, startBroker } from "../support/broker-process.ts";
import { selfSigned } from "../support/certificate.ts";
import { OutboundProxyServer } from "../support/outbound-proxy.ts";
import { until } from "../support/patience.ts";
import { providersFolder } from "../support/providers/definition-files.ts";
import { temporaryFolder } from "../support/services/guardian.ts";

const password = "pr0xy p@ssword/7f31";
const credentials = `broker:${password}`;

/** A rotating provider: each refresh token works once, and if one is sent twice, its family has ended. */
class Rotating {
  readonly sent: string[] = [];
  readonly reused: string[] = [];
  #valid = "r-0";

  answer: http.RequestListener = (request, response) => {
    let body = "";
    request.on("data", (chunk: Buffer) => (body += chunk.toString()));
    request.on("end", () => {
      const given = new URLSearchParams(body).get("refresh_token") ?? "";
      if (this.sent.includes(given)) this.reused.push(given);
      const isValid = given === this.#valid && this.reused.length === 0;
      this.sent.push(given);
      this.#valid = `r-${this.sent.length}`;
      const grant = { access_token: `a-${this.sent.length}`, refresh_token: this.#valid, expires_in: 3600 };
      response.writeHead(isValid ? 200 : 400, { "content-type": "application/json" });
      response.end(JSON.stringify(isValid ? grant : { error: "invalid_grant" }));
    });
  };
}

const define = (id: string, url: string) => ({ id, extends: "oauth2", grants: ["import"], token: { url } });

describe("a broker whose way out is a proxy", () => {
  const stack = new AsyncDisposableStack();
  const [inTunnel, plain] = [new Rotating(), new Rotating()];
  let proxy: OutboundProxyServer;
  let broker: BrokerProcess;
  let tlsPort = 0;

  const serve = async (server: http.Server): Promise<number> => {
    await once(server.listen(0, "127.0.0.1"), "listening");
    stack.defer(async () => {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    });
    return (server.address() as AddressInfo).port;
  };

  beforeAll(async () => {
    const key = generateKeyPairSync("ec", { namedCurve: "P-256" });
    const certificate = selfSigned(key, ["localhost"]);
    const pem = key.privateKey.export({ format: "pem", type: "pkcs8" });
    tlsPort = await serve(https.createServer({ key: pem, cert: certificate }, inTunnel.answer));
    const plainPort = await serve(http.createServer(plain.answer));
    proxy = stack.use(await OutboundProxyServer.start({ credentials }));
    const { path } = await temporaryFolder("proxy");
    const [ca, secret] = [join(path, "ca.pem"), join(path, "proxy")];
    await writeFile(ca, certificate);
    await writeFile(secret, `${proxy.url}\n`);
    const definitions = () => [
      define("tunnelled", `https://localhost:${tlsPort}/token`),
      define("plain", `http://127.0.0.1:${plainPort}/token`),
    ];
    broker = stack.use(
      await startBroker({
        providersDir: await providersFolder({ definitions }),
        env: { HTTPS_PROXY_FILE: secret, HTTP_PROXY_FILE: secret, NODE_EXTRA_CA_CERTS: ca },
      }),
    );
    for (const name of ["tunnelled", "plain"]) {
      await broker.api.createClient({ name, provider: name, client_id: "c", client_secret: "s3cr3t" });
      await broker.api.createConnection({ name, provider: name, client: name, grant: "import" });
      await broker.api.importTokens(name, { access_token: "a-0", refresh_token: "r-0", expires_in: 3600 });
    }
  });
  afterAll(async () => await stack.disposeAsync());

  const refresh = async (name: string) => await broker.api.api(`/connections/${name}/refresh`, { method: "POST" });
  const lastError = async (name: string) =>
    (await broker.api.api<{ last_error: null | { code: string; detail: string } }>(`/connections/${name}`)).body
      .last_error;

  it("refreshes through its tunnel, by the address that it has checked, with a certificate of one's own", async () => {
    await refresh("tunnelled");
    expect((await broker.api.token("tunnelled")).body.access_token).toBe("a-1");
    expect(new Set(proxy.requests.map(({ method, target }) => `${method} ${target}`))).toEqual(
      new Set([`CONNECT 127.0.0.1:${tlsPort}`]),
    );
    expect([inTunnel.sent, proxy.faults]).toEqual([["r-0"], []]);
  });

  it("has spent nothing where the proxy asks for another password, says which proxy, and goes on by itself", async () => {
    proxy.misdeed = (_request, socket) => void socket.end("HTTP/1.1 407 Proxy Authentication Required\r\n\r\n");
    await refresh("tunnelled");
    const failed = await lastError("tunnelled");
    expect(failed).toMatchObject({ code: "connect_failed" });
    expect(failed?.detail).toMatch(/the proxy 127\.0\.0\.1:\d+ refuses the user name or password \(407\): HTTPS_PROXY/);
    proxy.misdeed = null;
    await until("the next refresh", async () => {
      await refresh("tunnelled");
      return inTunnel.sent.length > 1;
    });
    await until("its token", async () => (await broker.api.token("tunnelled")).body.access_token === "a-2");
    expect([inTunnel.sent, inTunnel.reused]).toEqual([["r-0", "r-1"], []]);
  });

  it("leaves the outcome open where a proxy that had the request answers 503, and sends the token no second time", async () => {
    proxy.misdeed = (_request, socket, pass) => {
      pass(); // the provider gets it, and its answer is lost
      socket.write("HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n");
    };
    await refresh("plain");
    const failed = await lastError("plain");
    expect(failed).toMatchObject({ code: "outcome_unknown" });
    expect(failed?.detail).toMatch(/the proxy 127\.0\.0\.1:\d+, or the provider behind it, answered 503/);
    proxy.misdeed = null;
    await refresh("plain");
    expect((await broker.api.token("plain")).body.access_token).toBe("a-0");
    expect([plain.sent, plain.reused]).toEqual([["r-0"], []]);
  });

  it("tells its proxy's password to nobody", async () => {
    const shown = await Promise.all(
      ["/connections", "/connections/tunnelled/events", "/connections/plain/events", "/metrics"].map(async (path) =>
        JSON.stringify((await broker.api.api(path)).body),
      ),
    );
    const said = [broker.stdout, broker.stderr, ...shown].join();
    expect(said).toContain("tunnelled");
    for (const secret of [password, encodeURIComponent(password), btoa(credentials)]) {
      expect(said).not.toContain(secret);
    }
  });
});
