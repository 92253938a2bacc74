import type { Failure } from "../providers/grant.ts";
import type { Clients } from "../store/clients.ts";
import type { RefreshObserver } from "./observer.ts";
import type { Sendable, SendPlan } from "./sending.ts";

/**
 * A client whose secret was changed has two until the newer one has worked. Providers do not agree on what they answer to a wrong
 * secret: some say that the grant is over, some say nothing that anybody understands. So the older one is tried before either is believed.
 */

/** The same with the older secret; null: there is none, or what was refused is not the secret. */
export function withOlderSecret(
  failure: Failure,
  plan: SendPlan,
  { clientSecrets }: Pick<Sendable, "clientSecrets">,
): SendPlan | null {
  const isLast = plan.secretIndex + 1 >= clientSecrets.length;
  if (isLast || !mayMeanSecret(failure, plan)) return null;
  return { ...plan, secretIndex: plan.secretIndex + 1, refused: failure };
}

function mayMeanSecret(failure: Failure, { grant }: SendPlan): boolean {
  if (failure.class === "client_rejected") return true;
  // A refused login is never repeated: accounts get locked.
  if (grant === "password") return false;
  if (failure.class === "refused_for_good") return true;
  // "Not yet" is no error of RFC 6749 either, and a poll that is repeated at once is one too many.
  return failure.isUnexplained === true && grant !== "device_code";
}

/** What two refusals come to, one for each secret. What the newest was answered counts, unless it was the one that is wrong. */
export function bothRefused(failure: Failure, { grant, refused }: SendPlan): Failure {
  if (refused === undefined || grant === "password") return failure;
  const saysNothing =
    failure.class !== "refused_for_good" && failure.class !== "client_rejected" && !failure.isUnexplained;
  const isWrong = refused.class === "client_rejected" && failure.class === "refused_for_good";
  return saysNothing || isWrong ? failure : refused;
}

type Parts = {
  clients: Pick<Clients, "forgetPreviousSecret" | "noteOldSecret">;
  observer: Pick<RefreshObserver, "oldSecretUsed">;
};

/** After an answer is stored: a newest secret that has worked ends the one before; one that only the older covers is told, once. Never rejects. */
export async function learnFromSuccess(
  { clients, observer }: Parts,
  { client, row }: Pick<Sendable, "client" | "row">,
  { secretIndex }: Pick<SendPlan, "secretIndex">,
): Promise<void> {
  if (client === null || client.previousSecret === null) return;
  try {
    if (secretIndex === 0) return await clients.forgetPreviousSecret(client.id, client.secretRevision);
    const isNew = client.oldSecretSince === null && (await clients.noteOldSecret(client, row.id));
    if (isNew) observer.oldSecretUsed(row, client);
  } catch {
    // The next success leads here again.
  }
}
