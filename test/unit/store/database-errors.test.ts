import { describe, expect, it } from "vitest";
import { failingOf, PoolBusyError } from "../../../src/store/database-errors.ts";

/** Errors of Postgres as Prisma's adapter passes them on: those of raw statements keep the SQLSTATE, those of its own statements have a kind. */
function answered(state: string, code = "P2010"): Error {
  const cause = { originalCode: state, code: state, kind: "postgres" };
  return Object.assign(new Error(`SQLSTATE ${state}`), {
    name: "PrismaClientKnownRequestError",
    code,
    meta: { driverAdapterError: { cause } },
  });
}

const kindOf = (error: unknown) => failingOf(error).kind;

describe("what a failed statement tells of Postgres", () => {
  const states = {
    away: "08000 08003 08006 08P01 28000 28P01 53000 53100 53300 53400 57P01 57P02 57P03 57P04 25006 3D000 55000 42P01",
    busy: "55P03 55006 57014 57P05 40000 40001 40P01 40003 25P03 25P04 53200 54000 54001 58000 58030 58P01 72000 XX000 XX001 XX002",
    faulty: "22001 22012 22P02 22P05 23502 23505 23514 23P01 25P02 42501 42601 42703 42P05 26000 0A000 P0001 21000",
  };
  for (const [kind, listed] of Object.entries(states)) {
    it.each(listed.split(" "))(`%s: ${kind}`, (state) => {
      expect(kindOf(answered(state))).toBe(kind);
    });
  }

  it("of one that cannot be carried out now the SQLSTATE is told", () => {
    expect(failingOf(answered("55P03"))).toEqual({ kind: "busy", state: "55P03" });
    expect(failingOf(answered("40001", "P2034"))).toEqual({ kind: "busy", state: "40001" });
  });

  it("a transaction that took too long is one statement's trouble: it has waited for a lock", () => {
    const late = Object.assign(new Error("Transaction already closed"), {
      name: "PrismaClientKnownRequestError",
      code: "P2028",
    });
    expect(failingOf(late)).toEqual({ kind: "busy", state: "P2028" });
  });

  it("a pool of this process without a free connection says nothing about Postgres; a driver without an answer does", () => {
    expect(kindOf(new PoolBusyError("none became free"))).toBe("busy");
    expect(kindOf(new Error("Query read timeout"))).toBe("away");
    expect(kindOf(new AggregateError([new Error("refused")]))).toBe("away");
  });

  it("a fault of the program is none of the database's", () => {
    expect([kindOf(new TypeError("x is undefined")), kindOf("text")]).toEqual(["faulty", "faulty"]);
  });
});
