import type { ApiClient } from "./api-client.ts";
import { CliError } from "./errors.ts";
import { isResource, resourcesIn, textOf, type Resource } from "./resource.ts";
import type { Session } from "./session.ts";

const pollEveryMs = 1000;

/** What was so before the link was shown: a connection that is reconnected has been `connected` all along. */
export type Watch = {
  path: string;
  /** What a person was shown, to be told about: `link` or `code`. */
  shown: string;
  connectedBefore: boolean;
  lastEventId: unknown;
  /** How an event is told after which waiting is in vain; undefined: the wait goes on. */
  endingOf: (event: Resource) => CliError | undefined;
};

/** Failures that pass by themselves: a broker that restarts, or a replica that is being replaced. */
const passing = new Set([
  "broker_unreachable",
  "timeout",
  "unexpected_answer",
  "storage_unavailable",
  "encryption_key_missing",
  "rate_limited",
]);

/** Looks at a connection before its link or code is shown. `path` is the connection's own, `connection` what it answered. */
export async function watchConnection(
  api: ApiClient,
  path: string,
  { connection, shown, endingOf }: Pick<Watch, "shown" | "endingOf"> & { connection: Resource },
): Promise<Watch> {
  const [newest] = await readEvents(api, path);
  const connectedBefore = connection["status"] === "connected";
  return { path, shown, connectedBefore, lastEventId: newest?.["id"], endingOf };
}

/**
 * Waits until somebody has connected it, telling on stderr what happens meanwhile, and returns the connection; null when `deadlineMs`
 * (by `nowMs`) has passed. @throws CliError when it is disabled or deleted, or after an event that ends the watch
 */
export async function waitUntilConnected(
  session: Session,
  { watch, deadlineMs }: { watch: Watch; deadlineMs: number },
): Promise<Resource | null> {
  const api = session.api();
  while (session.nowMs() < deadlineMs) {
    const connected = await look(session, api, watch).catch(tolerate);
    if (connected) return connected;
    await session.sleep(pollEveryMs);
  }
  return null;
}

async function look({ output }: Session, api: ApiClient, watch: Watch): Promise<Resource | undefined> {
  const events = eventsSince(await readEvents(api, watch.path), watch.lastEventId);
  const connection = await api.get(watch.path);
  if (connection["status"] === "disabled") throw new CliError("It has been disabled", "connection_disabled");
  watch.lastEventId = events[0]?.["id"] ?? watch.lastEventId;
  const reconnected = events.some(({ type }) => type === "connected" || type === "reconnected");
  if (connection["status"] === "connected" && (reconnected || !watch.connectedBefore)) return connection;
  for (const event of events.toReversed()) output.note(describeEvent(event));
  const ending = events.map(watch.endingOf).find((error) => error !== undefined);
  if (ending !== undefined) throw ending;
  return undefined;
}

function tolerate(error: unknown): undefined {
  if (error instanceof CliError && passing.has(error.code)) return undefined;
  throw error;
}

/** Newest first, as they came. */
function eventsSince(events: Resource[], lastEventId: unknown): Resource[] {
  const seenAt = events.findIndex(({ id }) => id === lastEventId);
  return seenAt === -1 ? events : events.slice(0, seenAt);
}

async function readEvents(api: ApiClient, path: string): Promise<Resource[]> {
  const page = await api.get(`${path}/events`);
  return resourcesIn(page["items"]);
}

function describeEvent({ at, type, detail }: Resource): string {
  const said = isResource(detail) ? Object.values(detail).map(textOf).filter(Boolean).join(", ") : textOf(detail);
  return `${textOf(at)} ${textOf(type)}${said === "" ? "" : `: ${said}`}`;
}
