import type { Keyring } from "./keyring.ts";
import type { Absence, KeyList } from "./key-list.ts";

/** Proofs of what replicas tell each other by places that others may write to, too. */
export type SharedProofs = {
  sign(purpose: string, text: string): string;
  /** `silent`: made with a key that this ring lacks and the database names, so that another replica can tell. */
  judge(purpose: string, text: string, proof: string): Promise<"authentic" | Absence>;
};

export function createSharedProofs(keyring: Pick<Keyring, "sign" | "verify">, keys: KeyList): SharedProofs {
  return {
    sign: (purpose, text) => keyring.sign(purpose, text),
    async judge(purpose, text, proof) {
      const judged = keyring.verify(purpose, text, proof);
      if (judged === "authentic") return judged;
      return judged === "forged" ? "absent" : await keys.absenceOf(proof.slice(0, Math.max(proof.lastIndexOf("."), 0)));
    },
  };
}
