import * as fc from "fast-check";
import { expect, test } from "vitest";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { packRow, unpackRow } from "../../../src/tokens/packed-row.ts";
import { tokenRow } from "./token-row.ts";

const time = fc.date({ noInvalidDate: true });
const bytes = fc.uint8Array();
const texts = fc.dictionary(fc.string(), fc.string());
/** By what a column holds in the row of the other tests. */
const arbitraryLike = (value: unknown): fc.Arbitrary<unknown> => {
  if (value instanceof Date) return time;
  if (value instanceof Uint8Array) return bytes;
  if (Array.isArray(value)) return fc.array(fc.string());
  if (typeof value === "number") return fc.integer();
  if (typeof value === "boolean") return fc.boolean();
  return typeof value === "string" ? fc.string() : texts;
};
const nullable: Partial<TokenRow> = {
  lookupFailedAt: new Date(),
  refreshTokenExpiresAt: new Date(),
  authorizedAt: new Date(),
  noRefreshTokenSince: new Date(),
  keepAliveAt: new Date(),
  attemptStartedAt: new Date(),
  leaseUntil: new Date(),
  backoffUntil: new Date(),
  probablyDeadSince: new Date(),
  retriedAt: new Date(),
  credentials: new Uint8Array(),
  lastErrorDetail: "x",
  account: "x",
  clientRef: "x",
  mac: "x",
  goneBackFrom: 1,
  lookedUp: 1,
};
const full = { ...tokenRow(), ...nullable };
const arbitraries = Object.fromEntries(
  Object.entries(full).map(([name, value]) => {
    const mayLack = name in nullable || name === "accessToken" || name === "refreshToken";
    return [name, mayLack ? fc.option(arbitraryLike(value)) : arbitraryLike(value)];
  }),
) as { [Name in keyof TokenRow]: fc.Arbitrary<TokenRow[Name]> };

test("a row that was packed is the same again, whatever it holds", () => {
  fc.assert(
    fc.property(fc.record(arbitraries), (row) => {
      expect(unpackRow(packRow(row), row)).toEqual(row);
    }),
  );
});

test("rows of one client differ in one of the two texts only", () => {
  const [one, other] = [
    tokenRow(),
    tokenRow({ version: 9, account: "b", inputs: { shop: "x" }, expiresAt: new Date() }),
  ];
  expect(packRow(one).common).toBe(packRow(other).common);
});
