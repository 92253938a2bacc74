import { Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import type { RecoveryService } from "../../registry/recovery-service.ts";
import { principalOf } from "../auth.ts";
import { closed, recoverySchema, resourceName } from "../schemas.ts";
import type { ApiScope } from "../scope.ts";
import { viewRecovery } from "../views.ts";

export type RecoveryRoutesOptions = { recovery: RecoveryService };

const tags = ["recovery"];

const release = closed({
  connections: Type.Optional(Type.Array(resourceName, { minItems: 1, maxItems: 10_000, uniqueItems: true })),
  all: Type.Optional(Type.Boolean()),
});

/** `/recovery`: connections that are held since the database went back in time, and keys that may be back with it. */
export async function recoveryRoutes(app: ApiScope, { recovery }: RecoveryRoutesOptions): Promise<void> {
  const list = {
    summary: "Connections that are not refreshed since the database was restored",
    tags,
    response: { 200: recoverySchema },
  };
  app.get("/recovery", { schema: list }, async (request) => viewRecovery(await recovery.list(principalOf(request))));

  const confirm = {
    summary: "Let them be refreshed again, with the refresh tokens as restored",
    tags,
    body: release,
    response: { 200: Type.Object({ released: Type.Array(Type.String()) }) },
  };
  app.post("/recovery", { schema: confirm }, async (request) => {
    const { connections, all = false } = request.body;
    if ((connections === undefined) === !all) {
      throw new BrokerError("invalid_request", "Send either connections, a list of names, or all: true.");
    }
    return { released: await recovery.release(principalOf(request), connections ?? null) };
  });
}
