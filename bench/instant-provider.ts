import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

/** A token endpoint that answers every request at once with a new pair of tokens. `GET /count` says how many it has answered. */
let count = 0;
const server = createServer((request, response) => {
  if (request.method === "GET") {
    response.end(String(count));
    return;
  }
  request.resume().on("end", () => {
    count += 1;
    response.setHeader("content-type", "application/json");
    response.end(
      JSON.stringify({
        access_token: `access-${count}-${"x".repeat(48)}`,
        refresh_token: `refresh-${count}-${"x".repeat(48)}`,
        token_type: "Bearer",
        expires_in: 86_400,
      }),
    );
  });
});
server.listen(0, "127.0.0.1", () => process.send?.((server.address() as AddressInfo).port));
