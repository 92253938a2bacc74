import type { TypeBoxTypeProvider } from "@fastify/type-provider-typebox";
import type {
  FastifyBaseLogger,
  FastifyInstance,
  RawReplyDefaultExpression,
  RawRequestDefaultExpression,
  RawServerDefault,
} from "fastify";
import { type TSchema, Type } from "typebox";
import { errorCodes } from "../errors.ts";
import { connectionGrants } from "../grant-types.ts";
import { abilities } from "../store/api-keys.ts";

/** What is said of a schema in the OpenAPI document. `example`: a value that fits it. */
type Told = { description: string; example?: unknown };

/** Fields of an object: each is described. `title`: the name of the component that the OpenAPI document makes of the object. */
export const named = <T extends Record<string, TSchema>>(title: string, told: Told, properties: T) =>
  Type.Object(properties, { title, ...told });

/** An object of a request: it refuses fields it does not know. */
export const closed = <T extends Record<string, TSchema>>(properties: T, options: object = {}) =>
  Type.Object(properties, { additionalProperties: false, ...options });

/** The body of a request, which the OpenAPI document makes a component of. */
export const requestBody = <T extends Record<string, TSchema>>(
  title: string,
  told: Told & { minProperties?: number },
  properties: T,
) => closed(properties, { title, ...told });

/** The schema or null, with the schema's own description. */
export const nullable = <T extends TSchema>(schema: T) => {
  const { description } = schema as { description?: string };
  return Type.Union([schema, Type.Null()], description === undefined ? {} : { description });
};

export const literals = <T extends readonly string[]>(values: T, options: object = {}) =>
  Type.Unsafe<T[number]>({ type: "string", enum: [...values], ...options });

/** Text, with what it says and an example. */
export const textField = (description: string, example?: string) =>
  Type.String({ description, ...(example === undefined ? {} : { example }) });

/** A moment, as RFC 3339 writes it. */
export const timestamp = (description: string) =>
  Type.String({ format: "date-time", description, example: "2026-11-20T12:00:00.000Z" });

export const count = (description: string) => Type.Integer({ description });

export const textList = (description: string) => Type.Array(Type.String(), { description });

export const texts = (description: string) => Type.Record(Type.String(), Type.String(), { description });

const nameShape = { description: "a-z, 0-9, then also . _ -, at most 128 characters", example: "acme-shop" };
export const resourceName = Type.String({ pattern: "^[a-z0-9][a-z0-9._-]{0,127}$", ...nameShape });

/** Which connections something is for. */
export const patternList = Type.Array(
  Type.String({ pattern: "^[a-z0-9._*-]{1,128}$", description: "a name; * stands for any characters" }),
  { maxItems: 100, description: "Names of connections; * stands for any characters", example: ["acme-*"] },
);

export const limit = Type.Integer({
  minimum: 1,
  maximum: 200,
  default: 50,
  description: "How many items a page holds at most",
  example: 50,
});
export const cursor = Type.String({
  maxLength: 200,
  description: "`next_cursor` of the page before; without it, the first page",
  example: "Y29ubmVjdGlvbnMgMjAyNi0xMS0yMFQxMjowMDowMC4wMDBaIDA",
});
export const scopeList = Type.Array(Type.String({ pattern: String.raw`^[\x21\x23-\x5B\x5D-\x7E]{1,256}$` }), {
  maxItems: 100,
  description: "Scopes to ask the provider for; without it, those of its definition",
  example: ["read"],
});
const labelMap = (shown: { description: string; example: Record<string, string> }) =>
  Type.Record(Type.String(), Type.String({ maxLength: 256 }), {
    propertyNames: { pattern: "^[A-Za-z0-9._/-]{1,64}$" },
    maxProperties: 64,
    ...shown,
  });
/** Of a connection. */
export const connectionLabels = labelMap({
  description: "Labels of your own, to find it again, and for callers that are bound to labels",
  example: { customer: "acme" },
});
/** Of a caller. */
export const callerLabels = labelMap({
  description:
    "Each of these a connection must carry, with this value, to be reached; without any, the names alone count",
  example: { customer: "acme" },
});
export const inputMap = Type.Record(Type.String(), Type.String({ maxLength: 2000 }), {
  maxProperties: 64,
  description: "What the provider's definition asks for, by name: `GET /providers/:provider` lists them",
  example: { shop_url: "https://shop.example.com" },
});

/** The path parameter of every route about one connection. */
export const connectionParams = Type.Object({ connection: textField("Name of the connection", "acme-shop") });

const statuses = ["pending", "connected", "needs_reauthorization", "disabled"] as const;
export const statusSchema = literals(statuses, {
  title: "ConnectionStatus",
  description:
    "pending: not connected yet; connected: tokens are kept fresh; needs_reauthorization: a person must connect it again; disabled: switched off",
  example: "connected",
});
export const grantSchema = literals(connectionGrants, {
  title: "Grant",
  description: "How its tokens are obtained, one of those that the provider offers",
});
export const abilitySchema = literals(abilities, {
  title: "Ability",
  description: "tokens: read tokens; connections: manage connections; admin: manage clients and keys, read definitions",
});

export const problemSchema = named(
  "Problem",
  {
    description: "Why a request was refused or could not be carried out (RFC 9457)",
    example: {
      type: "about:blank",
      title: "Not Found",
      status: 404,
      code: "connection_not_found",
      detail: "There is no connection of this name for this key.",
      connection: "acme-shop",
    },
  },
  {
    type: Type.Literal("about:blank", { description: "Always about:blank: `code` tells problems apart" }),
    title: textField("The status in words"),
    status: count("The answer's HTTP status"),
    code: literals(errorCodes, { title: "ErrorCode", description: "What is wrong, from a closed set" }),
    detail: textField("What is wrong and what to do, for people"),
    connection: Type.Optional(textField("The connection that it is about")),
    retry_after: Type.Optional(count("Seconds after which the same request may work, as in the header Retry-After")),
  },
);

/** A list of a page at a time. */
export const pageOf = <T extends TSchema>(title: string, item: T) => {
  const { title: of, example } = item as { title?: string; example?: unknown };
  const told = { description: `A page of a list of ${of}`, example: { items: [example], next_cursor: null } };
  return named(title, told, {
    items: Type.Array(item, { description: "Newest first" }),
    next_cursor: nullable(textField("Give it as `cursor` to get the next page; null: this is the last one")),
  });
};

/** An answer without a body. */
export const noContent = Type.Null({ description: "Done; the answer has no body" });

const header = "freshet-unconfirmed";

/** For the OpenAPI document. */
export const unconfirmedHeader = `The header \`${header}\` names the replicas, with commas between, that have not confirmed within some seconds that they have heard of it: one that reaches Postgres does within 4 s, one that reaches neither Postgres nor Redis when it is back. Without the header, all have.`;

/** The header, where there is something to tell. */
export function unconfirmedBy(names: readonly string[]): Record<string, string> {
  return names.length === 0 ? {} : { [header]: names.join(", ") };
}

/** A part of the app whose routes take their types from their schemas. */
export type ApiScope = FastifyInstance<
  RawServerDefault,
  RawRequestDefaultExpression,
  RawReplyDefaultExpression,
  FastifyBaseLogger,
  TypeBoxTypeProvider
>;
