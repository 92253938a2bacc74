import { describe, expect, it } from "vitest";
import type { Broker } from "../../../src/broker.ts";
import { type Environment, readConfig } from "../../../src/config.ts";
import { tellStart } from "../../../src/start/first-steps.ts";

type Line = { level: string; fields: Record<string, unknown>; text: string };

/** What a start with such a broker prints. */
async function told(broker: object, file: Environment["file"] = null): Promise<Line[]> {
  const lines: Line[] = [];
  const say = (level: string) => (fields: unknown, text?: unknown) =>
    void lines.push({ level, fields: fields as Line["fields"], text: String(text) });
  const parts = {
    hasAdmin: async () => true,
    describeDatabase: async () => "Postgres 17.2 at db/freshet",
    describeRedis: async () => "Redis 7.2.4 at redis:6379",
    catalog: { count: { all: 90, own: 2 } },
    ...broker,
  };
  const log = { info: say("info"), warn: say("warn") };
  await tellStart(parts as unknown as Broker, { config: readConfig({}), given: { env: {}, file }, log });
  return lines;
}

describe("the last line of a start", () => {
  it("says the version, the database, Redis, the providers, where the docs are, and which file was read", async () => {
    const file = { path: "/srv/freshet/.env", values: {}, problems: [] };
    const [line, ...more] = await told({}, file);
    expect(more).toEqual([]);
    expect(line?.text).toMatch(
      /^ready: Freshet \d+\.\d+\.\d+ at http:\/\/localhost:8080; Postgres 17\.2 at db\/freshet; Redis 7\.2\.4 at redis:6379; 90 providers, 2 of them from PROVIDERS_DIR; API and docs: http:\/\/localhost:8080\/docs; settings: the environment, and \/srv\/freshet\/\.env$/,
    );
    expect(line?.fields).toEqual({
      version: expect.stringMatching(/^\d+\.\d+\.\d+$/),
      database: "Postgres 17.2 at db/freshet",
      redis: "Redis 7.2.4 at redis:6379",
      providers: 90,
      settings: "/srv/freshet/.env",
      port: 8080,
      publicUrl: "http://localhost:8080",
    });
  });

  it("comes whatever cannot be asked, and holds nobody up", async () => {
    const [line] = await told({
      hasAdmin: () => Promise.reject(new Error("away")),
      describeDatabase: () => Promise.reject(new Error("away")),
      describeRedis: async () => "none",
    });
    expect(line?.text).toContain("; Postgres is away; no Redis; 90 providers");
  });

  it("comes after a warning where nobody can administer the broker", async () => {
    const lines = await told({ hasAdmin: async () => false });
    expect(lines.map(({ level }) => level)).toEqual(["warn", "info"]);
    expect(lines[0]?.text).toMatch(/^nobody can administer this broker: .*Set ADMIN_KEY to at least 32 characters/);
  });
});
