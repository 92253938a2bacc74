import { describe, expect, it } from "vitest";
import type { Failure } from "../../../src/providers/oauth/token-answer.ts";
import type { ClientRow } from "../../../src/store/clients.ts";
import { createLogger } from "../../../src/telemetry/logger.ts";
import { createMetrics, createRefreshObserver, measurePermits, type Metrics } from "../../../src/telemetry/metrics.ts";
import type { RequestContext } from "../../../src/tokens/request.ts";
import { define } from "../providers/definitions.ts";
import { tokenRow } from "../tokens/token-row.ts";

const secret = "s3cr3t-canary";

const client: ClientRow = {
  id: "8c1a7f7e-6a55-4a3b-8a60-0a9a2a1b3c4d",
  name: "app",
  provider: "own",
  clientId: "id",
  secretRevision: 0,
  secret: null,
  previousSecret: null,
  secretRotatingSince: null,
  oldSecretSince: null,
  scopes: [],
  patterns: [],
  inputs: {},
  ownRedirectUri: false,
  createdAt: new Date(0),
  updatedAt: new Date(0),
  mac: null,
};
const context: RequestContext = {
  row: tokenRow(),
  owner: tokenRow(),
  definition: define(""),
  client,
  clientSecrets: [secret],
};
const failed = (given: Pick<Failure, "class" | "code">): Failure => ({ ...given, detail: secret, status: 400 });
const rejected = { failure: failed({ class: "client_rejected", code: "invalid_client" }), replay: false, seconds: 1 };
const busy = { failure: failed({ class: "refused_for_now", code: "rate_limited" }), replay: false, seconds: 1 };

function observing() {
  const metrics = createMetrics();
  const lines: string[] = [];
  const observer = createRefreshObserver(metrics, createLogger("debug", { write: (line) => void lines.push(line) }));
  const levels = () => lines.map((line) => (JSON.parse(line) as { level: string }).level);
  return { metrics, observer, lines, levels };
}

/** This project's own figures, as Prometheus reads them. */
async function figures({ registry }: Metrics): Promise<Record<string, number>> {
  const text = await registry.metrics();
  const lines = text.split("\n").filter((line) => line.startsWith("freshet_"));
  return Object.fromEntries(
    lines.map((line) => [line.slice(0, line.lastIndexOf(" ")), Number(line.split(" ").at(-1))]),
  );
}

describe("what telemetry learns of refreshes", () => {
  it("they are counted by provider and outcome", async () => {
    const { metrics, observer } = observing();
    observer.succeeded(context, { replay: false, seconds: 0.2 });
    observer.failed(context, busy);
    observer.failed(context, busy);
    observer.lost(context.row);
    observer.commitDelayed(context.row, new Error(secret));
    observer.durable(context.row, { seconds: 0.003 });
    expect(await figures(metrics)).toMatchObject({
      'freshet_refreshes_total{provider="own",outcome="stored"}': 1,
      'freshet_refreshes_total{provider="own",outcome="refused_for_now"}': 2,
      'freshet_refresh_seconds_count{provider="own"}': 3,
      'freshet_lost_rotation_total{provider="own"}': 1,
      'freshet_refresh_exposure_seconds_count{provider="own"}': 1,
      freshet_commit_delays_total: 1,
    });
  });

  it("an outcome that nobody knew is counted by how it ended", async () => {
    const { metrics, observer } = observing();
    observer.succeeded(context, { replay: false, seconds: 0.2 });
    observer.succeeded(context, { replay: true, seconds: 0.2 });
    observer.drained(context.row);
    observer.cameLate(context.row, "promoted");
    observer.cameLate(context.row, "candidate");
    observer.cameLate(context.row, "unwanted");
    observer.lost(context.row);
    const counted = Object.entries(await figures(metrics)).filter(([name]) => name.includes("uncertain"));
    expect(counted.map(([name, count]) => [/resolution="(\w+)"/.exec(name)?.[1], count])).toEqual(
      ["replayed", "drained", "promoted", "candidate", "lost"].map((resolution) => [resolution, 1]),
    );
  });

  it("a client in trouble is reported once, and again only after it has worked", async () => {
    const { metrics, observer, levels } = observing();
    for (let count = 0; count < 5; count++) observer.failed(context, rejected);
    expect(levels()).toEqual(["error"]);
    observer.succeeded(context, { replay: false, seconds: 0.2 });
    observer.failed(context, rejected);
    expect(levels()).toEqual(["error", "debug", "error"]);
    expect(await figures(metrics)).toMatchObject({ 'freshet_client_rejected_total{provider="own"}': 2 });
  });

  it("what limits hold back is counted, and no warning: it may be thousands", async () => {
    const { metrics, observer, levels } = observing();
    const failure = { class: "not_sent", code: "limit_reached", detail: "" } as const;
    observer.failed(context, { failure, replay: false, seconds: 0 });
    observer.failed(context, { failure: { ...failure, code: "connect_failed" }, replay: false, seconds: 0 });
    expect(levels()).toEqual(["debug", "warn"]);
    expect(await figures(metrics)).toMatchObject({ 'freshet_refreshes_total{provider="own",outcome="not_sent"}': 2 });
  });

  it("nothing that a provider said and no secret gets into the log", () => {
    const { observer, lines } = observing();
    observer.failed(context, busy);
    observer.failed(context, rejected);
    observer.commitDelayed(context.row, new Error(secret));
    observer.lost(context.row);
    observer.cameLate(context.row, "candidate");
    observer.drained(context.row);
    observer.suspendedAfterRestore(context.row);
    expect(lines).toHaveLength(7);
    expect(lines.join("")).not.toContain(secret);
  });
});

describe("permits that stand", () => {
  it("are counted by one query when somebody looks, and their last figures stand while Postgres is gone", async () => {
    const metrics = createMetrics();
    let queries = 0;
    measurePermits(metrics, async () => {
      queries++;
      if (queries > 1) throw new Error("gone");
      return { count: 2, oldestSeconds: 31 };
    });
    for (const scrapes of [1, 2]) {
      expect(await figures(metrics)).toMatchObject({ freshet_permits: 2, freshet_permit_age_seconds: 31 });
      expect(queries).toBe(scrapes);
    }
  });
});

describe("reads", () => {
  it("are counted by result, and each scrape shows how many there were so far", async () => {
    const metrics = createMetrics();
    const ok = metrics.readsWith("ok");
    ok.count += 1;
    metrics.readsWith("ok").count += 1;
    metrics.readsWith("connection_not_found").count += 1;
    for (const oks of [2, 3]) {
      expect(await figures(metrics)).toMatchObject({
        'freshet_token_reads_total{result="ok"}': oks,
        'freshet_token_reads_total{result="connection_not_found"}': 1,
      });
      ok.count += 1;
    }
  });
});
