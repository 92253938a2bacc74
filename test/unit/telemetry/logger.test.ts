import { describe, expect, it } from "vitest";
import { BrokerError } from "../../../src/errors.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";

const secret = "s3cr3t-canary";

function logging() {
  const lines: string[] = [];
  const log = createLogger("debug", { write: (line) => void lines.push(line) });
  return { log, lines, last: () => JSON.parse(lines.at(-1) ?? "{}") as Record<string, unknown> };
}

describe("the log", () => {
  it("is JSON with level, time, text and the listed fields", () => {
    const { log, last } = logging();
    log.info({ connection: "acme", status: 200, ms: 1.5, replay: false }, "answered");
    expect(last()).toEqual({
      level: "info",
      time: expect.stringMatching(/^\d{4}-\d\d-\d\dT[\d:.]+Z$/),
      connection: "acme",
      status: 200,
      ms: 1.5,
      replay: false,
      msg: "answered",
    });
  });

  it("a field that is not listed does not come out, whatever its name", () => {
    const { log, lines } = logging();
    for (const name of ["access_token", "refreshToken", "body", "headers", "url", "query", "row", "failure", "msg2"]) {
      log.info({ [name]: secret }, "text");
      log.info({ [name]: { nested: secret } }, "text");
    }
    log.child({ token: secret, reqId: "r1" }).info("text");
    expect(lines.join("")).not.toContain(secret);
  });

  it("nothing nested comes out under a listed field", () => {
    const { log, lines, last } = logging();
    log.info({ status: { token: secret }, code: [secret], connection: new Map([[secret, secret]]) }, "text");
    expect(lines.join("")).not.toContain(secret);
    expect(last()).not.toHaveProperty("status");
  });

  it("of an error its name, code and place come out, and nothing of its message", () => {
    const { log, lines, last } = logging();
    const error = Object.assign(new TypeError(`bad value ${secret}\n    at ${secret}`), { code: "E1", detail: secret });
    error.cause = new Error(secret);
    log.error({ err: error }, "failed");
    expect(lines.join("")).not.toContain(secret);
    expect(last()["err"]).toEqual({ name: "TypeError", code: "E1", stack: expect.stringContaining("logger.test.ts") });
  });

  it("of an error whose cause lies outside no place in the code comes out: a network, a disk, Redis, what callers are told", () => {
    const { log, last } = logging();
    const refused = Object.assign(new Error(secret), { code: "ECONNREFUSED", syscall: "connect" });
    const reply = Object.assign(new Error(secret), { name: "ReplyError" });
    for (const err of [refused, reply, new BrokerError("storage_unavailable", secret)]) {
      log.warn({ err }, "failed");
      expect(last()["err"]).not.toHaveProperty("stack");
      expect(last()["err"]).toMatchObject({ name: err.name });
    }
  });

  it("the same where the error is all that is logged", () => {
    const { log, lines } = logging();
    log.error(new Error(secret));
    log.error({ err: new Error(secret) });
    log.child({}).warn(new Error(secret), "failed");
    expect(lines.join("")).not.toContain(secret);
    expect(lines).toHaveLength(3);
  });

  it("what was thrown and is no error does not come out", () => {
    const { log, lines, last } = logging();
    log.error({ err: secret }, "failed");
    log.error({ err: { message: secret, response: { body: secret } } }, "failed");
    expect(lines.join("")).not.toContain(secret);
    expect(last()["err"]).toEqual({ name: "object" });
  });
});
