import { expect, it } from "vitest";
import { createLogger, plainLines } from "../../../src/telemetry/logger.ts";

it("at a terminal each line of the log is text, with the fields that it does not repeat; what is no line of the log goes as it is", () => {
  const written: string[] = [];
  const output = plainLines({ write: (text) => void written.push(text) });
  const log = createLogger("info", output);
  log.info({ redis: "away", port: 8080 }, "ready: Redis is away");
  log.warn({ variable: "ADMIN_KEY" }, "nobody can administer this broker: ADMIN_KEY is not set");
  log.info({ route: "/tokens/:connection", status: 200, reqId: "r1" }, "answered");
  output.write("\nFreshet is ready\n");
  expect(written).toEqual([
    "ready: Redis is away port=8080\n",
    "warn: nobody can administer this broker: ADMIN_KEY is not set\n",
    "answered route=/tokens/:connection status=200\n",
    "\nFreshet is ready\n",
  ]);
});

it("no control character of a value reaches the terminal: it is written as JSON writes it", () => {
  const written: string[] = [];
  const log = createLogger("info", plainLines({ write: (text) => void written.push(text) }));
  log.warn({ provider: "a\u001b[2Jb\u009b31m" }, "acme\r\nready: all is well\u007f");
  expect(written).toEqual([
    String.raw`warn: acme\u000d\u000aready: all is well\u007f provider=a\u001b[2Jb\u009b31m` + "\n",
  ]);
});
