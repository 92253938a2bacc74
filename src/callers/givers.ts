import type { ApiKeys } from "../store/api-keys.ts";
import type { FindGiver } from "../store/giving.ts";
import type { Workloads } from "../store/workloads.ts";
import { bootstrapKeyId, type Principal } from "./principal.ts";

/** Whose row must still stand when a caller gives rights; null: no row says what the caller may (ADMIN_KEY, WORKLOADS_FILE). */
export type GiverOf = (giver: Principal) => FindGiver | null;

export function createGiverOf(tables: { keys: Pick<ApiKeys, "giver">; workloads: Pick<Workloads, "giver"> }): GiverOf {
  return ({ callerId, actor, declaration }) => {
    if (declaration !== undefined) return async () => await tables.workloads.giver(declaration);
    if (callerId === bootstrapKeyId || actor.kind === "workload") return null;
    return async () => await tables.keys.giver(callerId);
  };
}
