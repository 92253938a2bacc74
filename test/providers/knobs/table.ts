import { apiRows, lookupRows } from "./api-rows.ts";
import { answerRows } from "./answer-rows.ts";
import { authorizationRows } from "./authorization-rows.ts";
import { exchangePlace, firstPlaces, lookupPlace, refreshPlaces, sidePlaces } from "./places.ts";
import { exchangeRows, fixedClientRow, requestRows } from "./request-rows.ts";
import { restRows } from "./rest-rows.ts";
import type { Row } from "./row.ts";
import { tokenRows } from "./token-rows.ts";

/** Every row that is played. */
export const rows: Row[] = [
  ...tokenRows,
  ...[...firstPlaces, ...refreshPlaces, exchangePlace].flatMap(exchangeRows),
  ...firstPlaces.map(fixedClientRow),
  ...[...sidePlaces, lookupPlace].flatMap(requestRows),
  ...authorizationRows,
  ...answerRows,
  ...restRows,
  ...lookupRows,
  ...apiRows,
];
