import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import type { RestoredRowsService } from "../../services/restored-rows.ts";
import { recoverySchema, releasedSchema } from "../admin-answers.ts";
import { audited, noteInAudit } from "../audit.ts";
import { principalOf } from "../auth.ts";
import { type ApiScope, requestBody, resourceName } from "../schemas.ts";
import { viewRecovery } from "../views.ts";

export type RecoveryRoutesOptions = { recovery: RestoredRowsService };

const tags = ["recovery"];
/** How many names an entry of the audit holds at most. */
const mostNamed = 100;

const release = requestBody(
  "Release",
  { description: "Which connections to refresh again: names, or all", example: { connections: ["acme-shop"] } },
  {
    connections: Type.Optional(
      Type.Array(resourceName, {
        minItems: 1,
        maxItems: 10_000,
        uniqueItems: true,
        description: "Names of connections that are held",
      }),
    ),
    all: Type.Optional(Type.Boolean({ description: "true: all that are held" })),
  },
);

/** `/recovery`: connections that are suspended since a restore of the database, and keys that may be back with it. */
export async function recoveryRoutes(app: ApiScope, { recovery }: RecoveryRoutesOptions): Promise<void> {
  const list = {
    operationId: "listHeldConnections",
    summary: "Connections that are not refreshed since the database was restored",
    description: "And, while there are any, the keys that work: some may have been revoked after the backup.",
    tags,
    response: { 200: recoverySchema },
  };
  app.get("/recovery", { schema: list }, async (request) => viewRecovery(await recovery.list(principalOf(request))));

  const confirm = {
    operationId: "releaseConnections",
    summary: "Let them be refreshed again, with the refresh tokens as restored",
    description: "Connecting an account again does the same, and works where the provider takes no old token.",
    tags,
    problems: ["not_found", "conflict"] as const,
    body: release,
    response: { 200: releasedSchema },
  };
  app.post("/recovery", { schema: confirm, config: audited("recovery.confirm", "connection") }, async (request) => {
    const { connections, all = false } = request.body;
    if ((connections === undefined) === !all) {
      throw new BrokerError("invalid_request", "Send either connections, a list of names, or all: true.");
    }
    const released = await recovery.release(principalOf(request), connections ?? null);
    noteInAudit(request, { detail: { count: released.length, connections: released.slice(0, mostNamed) } });
    return { released };
  });
}
