import type { Actor, Audit, AuditAction, Begun } from "../audit/entries.ts";
import type { ConsentLinks } from "../store/consents.ts";
import type { TokenStatements } from "../store/token-statements.ts";
import type { AuditedCode, DeviceParts } from "../tokens/devices.ts";
import { toConsentError } from "./problem.ts";

/** Who acts at a consent link, as far as anybody knows. */
export type AtLink = {
  linkId: string;
  /** The id of the key that made the link; null: not known. */
  madeBy: string | null;
  /** Where the person's browser is; null: not known. */
  address: string | null;
  /** `app`: an app says whose account it becomes. `weak`: it becomes the connection's, whoever sits at the browser. */
  binding: "app" | "weak";
};

/** The binding of a link. */
export function bindingOf({ endUser }: { endUser: string | null }): AtLink["binding"] {
  return endUser === null ? "weak" : "app";
}

type Act = {
  action: AuditAction;
  at: AtLink;
  connectionName: string;
  detail?: Record<string, unknown>;
};

export type ConsentAudit = ReturnType<typeof createConsentAudit>;

/**
 * Writes what a person does at a consent link: before `work`, and what came of it afterwards. Call it when the link, or the state, is known to be real,
 * so that nobody else makes entries. `resultOf`: "ok", or how it ended instead. No token set is lost because of the audit: where nothing takes
 * the entry, the work is done all the same.
 */
export function createConsentAudit(audit: Pick<Audit, "begin" | "end">) {
  return async <Done>(
    { action, at, connectionName, detail }: Act,
    work: () => Promise<Done>,
    resultOf: (done: Done) => string = () => "ok",
  ): Promise<Done> => {
    const actor = { kind: "link", id: at.linkId, name: at.madeBy } as const;
    const target = { kind: "connection", name: connectionName } as const;
    const entry = { actor, action, target, address: at.address, detail: { binding: at.binding, ...detail } };
    const begun = await audit.begin(entry, { mustNotFail: true });
    try {
      const done = await work();
      await audit.end(begun, { result: resultOf(done) });
      return done;
    } catch (error) {
      await audit.end(begun, { result: toConsentError(error)?.problem ?? "internal_error" });
      throw error;
    }
  };
}

type CodeAuditParts = {
  audit: Pick<Audit, "begin" | "end">;
  rows: Pick<TokenStatements, "readById">;
  links: Pick<ConsentLinks, "madeBy">;
};

/** The same about a user code (RFC 8628), which comes to its end in the background: no request brings it, so there is no address. */
export function createCodeAudit({ audit, rows, links }: CodeAuditParts): DeviceParts["audited"] {
  const makerOf = async (id: string) => await links.madeBy(id).catch(() => null);
  const begin = async (code: AuditedCode): Promise<Begun> => {
    const { connectionId, connection, linkId, madeBy } = code;
    const nameOf = async () => (await rows.readById(connectionId).catch(() => null))?.name ?? null;
    const name = connection ?? (await nameOf());
    const maker = linkId === null ? null : (madeBy ?? (await makerOf(linkId)));
    const actor: Actor = { kind: linkId === null ? "person" : "link", id: linkId, name: maker };
    const target = { kind: "connection", name } as const;
    const detail = { binding: "weak" };
    return await audit.begin(
      { actor, action: "consents.complete", target, address: null, detail },
      { mustNotFail: true },
    );
  };
  return async (code) => {
    const begun = await begin(code);
    return async (result) => await audit.end(begun, { result });
  };
}
