import { valueOf } from "./holdings.ts";
import type { People } from "./people.ts";
import type { SimRow } from "./sim-row.ts";
import type { World } from "./world.ts";

type Deed = People["deeds"][number];

/** The newest human action wins: at rest, a connection is as the last answer to a person said. */
export function checkDeeds(world: World, people: People): void {
  for (const name of new Set(people.deeds.map((deed) => deed.name))) {
    const deeds = people.deeds.filter((deed) => deed.name === name);
    const row = world.database.tables.byName(name);
    checkExistence(world, deeds, row);
    if (row === undefined) continue;
    const own = deeds.filter(({ id }) => id === row.id);
    checkGrant(world, own, row);
    checkStatus(world, own, row);
  }
}

/** It began after the other one had reached the database, and ended after it. */
function isNewer(one: Deed, other: Deed): boolean {
  return one.startMs > (other.family?.askedMs ?? Infinity) && (one.end?.atMs ?? -1) > (other.end?.atMs ?? Infinity);
}

function checkExistence(world: World, deeds: readonly Deed[], row: SimRow | undefined): void {
  const deleted = deeds.find(({ what, id, end }) => what === "delete" && id === row?.id && end?.ok === true);
  if (deleted !== undefined) world.violation(`${deleted.name} is there, and a person was told that it is deleted`);
}

function checkGrant(world: World, deeds: readonly Deed[], row: SimRow): void {
  const value = valueOf(row);
  const family = value === null ? null : (world.provider.grants.tokens.get(value)?.family ?? null);
  const grants = deeds.filter(({ what }) => what === "grant");
  const holding = grants.find((deed) => deed.family === family);
  const newer = grants.filter(
    (deed) => deed.end?.ok === true && (holding === undefined || isNewer(deed, holding)) && deed.family !== family,
  );
  const newest = newer.at(-1);
  if (newest === undefined) return;
  world.violation(`${row.name} holds family ${family?.id}, and a person was told of the newer ${newest.family?.id}`);
}

function checkStatus(world: World, deeds: readonly Deed[], row: SimRow): void {
  const told = deeds.filter(({ what }) => what === "disable" || what === "enable");
  // Of those that ran at once, or whose outcome nobody knows, either may be the last.
  const newest = told.find((deed) => told.every((other) => other === deed || isOver(other, deed)));
  if (newest?.end?.ok !== true) return;
  const isDisabled = row.status === "disabled";
  if (isDisabled !== (newest.what === "disable")) world.violation(`${row.name} is ${row.status} after ${newest.what}`);
}

function isOver(other: Deed, deed: Deed): boolean {
  return other.end !== null && other.end.atMs < deed.startMs;
}

/** How many deeds happened while a refresh token of their connection was on its way. */
export function deedsDuringSends(world: World, people: People): number {
  const sends = world.provider.sends.filter(({ token }) => token !== null);
  const falls = ({ startMs, end, id }: Deed) =>
    sends.some(({ token, beganMs, read }) => {
      const isTheirs = token !== null && world.holdings.holders.get(token.value)?.row.id === id;
      return isTheirs && beganMs <= (end?.atMs ?? Infinity) && (read?.atMs ?? Infinity) >= startMs;
    });
  return people.deeds.filter(falls).length;
}
