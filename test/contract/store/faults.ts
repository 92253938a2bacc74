import { expect, it } from "vitest";
import { BrokerError, isStorageUnavailable } from "../../../src/errors.ts";
import { isUniqueViolation } from "../../../src/store/database-errors.ts";
import { sealedGrant, type StoreStage } from "./stage.ts";

/** A refusal of the database is told apart from its absence: only after the latter does another try make sense. */
export function faults(stage: () => StoreStage): void {
  it("a statement that is itself at fault is no outage", async () => {
    const { key } = await stage().permit();
    const faulty = [
      stage().query("SELECT nothing FROM connections"),
      stage().query("SELECT 1 / 0 AS quotient"),
      stage().query("SELECT 'x'::uuid::text AS id"),
      stage().insert({ name: "a NUL \0 in a name" }),
      stage().rows.commitRefresh(key, sealedGrant({ captured: { text: "\0" } }), {}),
      stage().set(key.connectionId, "status = 'unheard of'"),
    ];
    const errors = await Promise.all(
      faulty.map((each) =>
        each.then(
          () => "none",
          (error: unknown) => error,
        ),
      ),
    );
    expect(errors.map((error) => error instanceof Error)).toEqual(faulty.map(() => true));
    expect(errors.map(isStorageUnavailable)).toEqual(faulty.map(() => false));
    expect(errors.map(isUniqueViolation)).toEqual(faulty.map(() => false));
  });

  it("what was deleted at the same moment is a conflict, whoever refers to it", async () => {
    const row = await stage().connect();
    await stage().connections.delete(row.id);
    const late = stage().connections.addEvent(row.id, "account_lookup_failed", {});
    expect(await late.then(() => "none", codeOf)).toBe("conflict");
  });
}

function codeOf(error: unknown): string {
  return error instanceof BrokerError ? error.code : String(error);
}
