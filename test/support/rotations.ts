import { expect } from "vitest";
import type { StrictServer } from "./providers/strict-server.ts";
import type { ProviderStage } from "./provider-stage.ts";
import type { Service, ServiceToken } from "./service.ts";

/**
 * How a token ends. `time`: its life passes. `refusal`: the API refuses it before that, and the service reports its version. `order`: an
 * operator refreshes it.
 */
type Ending = "time" | "refusal" | "order";

const tenEndings: readonly Ending[] = "order time refusal order order refusal order order refusal order".split(
  " ",
) as Ending[];

/** The broker gives a token that is younger once more: it may have been refreshed between the call and the report. */
export const brandNewSeconds = 10;

/** The broker counts a life from its request, the provider from its answer. This is longer than the broker waits for an answer. */
const onTheWaySeconds = 60;

type Options = {
  stage: ProviderStage<StrictServer>;
  services: Service[];
  endings?: readonly Ending[];
  /** The servers whose APIs refuse a token; the stage's own server unless named. */
  servers?: StrictServer[];
};

/** All services at once: each new token is the next version, is what further reads give, and is good at the API. */
export async function rotate({
  stage,
  services,
  endings = tenEndings,
  servers = [stage.server],
}: Options): Promise<void> {
  const seen = new Set<string>();
  let tokens = await Promise.all(services.map((service) => useNewest(service, seen)));
  for (const ending of endings) {
    const before = tokens;
    if (ending === "refusal") for (const server of servers) server.killAccessTokens();
    if (ending === "refusal") await stage.pass(brandNewSeconds + 1);
    const longestSeconds = Math.max(...tokens.map(({ expires_in }) => expires_in ?? 0));
    if (ending === "time") await stage.pass(longestSeconds + onTheWaySeconds);
    await Promise.all(services.map((service, index) => end(stage, service, { ending, token: before[index] })));
    tokens = await Promise.all(services.map((service) => useNewest(service, seen)));
    expect(tokens.map(({ version }) => version)).toEqual(before.map(({ version }) => version + 1));
  }
}

async function end(
  stage: ProviderStage<StrictServer>,
  service: Service,
  { ending, token }: { ending: Ending; token: ServiceToken | undefined },
): Promise<void> {
  if (token === undefined) throw new Error("no token to end");
  if (ending === "order") {
    await stage.api.refresh(service.connection);
    return;
  }
  await service.meetEnd(token);
  const { status, body } = ending === "time" ? await service.read() : await service.report(token);
  expect([status, body.version], JSON.stringify(body)).toEqual([200, token.version + 1]);
}

/** Reads twice and calls the API. @returns the newest token, which must be one that nobody has seen before */
async function useNewest(service: Service, seen: Set<string>): Promise<ServiceToken> {
  const token = await service.token({ min_ttl: 0 });
  const again = await service.token({ min_ttl: 0 });
  expect([again.version, again.access_token]).toEqual([token.version, token.access_token]);
  expect(seen).not.toContain(token.access_token);
  seen.add(token.access_token);
  expect(await service.call(token)).toMatchObject({ status: 200 });
  expect(token.warnings).toEqual([]);
  return token;
}

/** The token lives as long as the documents say; some of it may be over. */
export function expectLife({ expires_in }: ServiceToken, seconds: number): void {
  expect(expires_in).toBeLessThanOrEqual(seconds);
  expect(expires_in).toBeGreaterThan(seconds - 60);
}
