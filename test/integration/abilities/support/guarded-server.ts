import { once } from "node:events";
import { readFileSync } from "node:fs";
import type { IncomingMessage, ServerResponse } from "node:http";
import { createServer } from "node:https";
import { text } from "node:stream/consumers";
import type { TLSSocket } from "node:tls";

const folder = new URL("certificates/", import.meta.url);
/** What each of them is: certificates/README.md. */
export const pem = (name: "authority" | "server" | "client" | "stranger") =>
  readFileSync(new URL(`${name}.pem`, folder), "utf8");
export const authorityFile = new URL("authority.pem", folder).pathname;

/** A token endpoint over https that takes clients by their certificates (RFC 8705, section 2.1), and says who came. */
export async function startGuardedServer() {
  const seen: { subject: string; fields: Record<string, string> }[] = [];
  const answer = async (request: IncomingMessage, response: ServerResponse): Promise<void> => {
    const fields = Object.fromEntries(new URLSearchParams(await text(request)));
    const socket = request.socket as TLSSocket;
    const isKnown = socket.authorized;
    seen.push({ subject: isKnown ? String(socket.getPeerCertificate().subject.CN) : "", fields });
    const body = isKnown ? { access_token: `token-${seen.length}`, expires_in: 3600 } : { error: "invalid_client" };
    response.writeHead(isKnown ? 200 : 401, { "content-type": "application/json" }).end(JSON.stringify(body));
  };
  const own = pem("server");
  const options = { cert: own, key: own, ca: pem("authority"), requestCert: true, rejectUnauthorized: false };
  const server = createServer(options, (request, response) => void answer(request, response));
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  const address = server.address();
  if (typeof address !== "object" || address === null) throw new Error("the server has no port");
  return {
    origin: `https://127.0.0.1:${address.port}`,
    seen,
    async stop() {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    },
  };
}
