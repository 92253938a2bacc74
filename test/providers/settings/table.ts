import { apiRows, lookupRows } from "./api-rows.ts";
import { answerRows } from "./answer-rows.ts";
import { authorizationRows, grantScopeRows } from "./authorization-rows.ts";
import { underGrants } from "./grant-lookup-rows.ts";
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
  ...grantScopeRows,
  ...answerRows,
  ...restRows,
  ...lookupRows,
  ...[...lookupRows, ...requestRows(lookupPlace)].flatMap(underGrants),
  ...apiRows,
];
