import { type Static, Type } from "typebox";
import { BrokerError } from "../../errors.ts";
import type { Workload } from "../../callers/workload.ts";
import type { Declared, WorkloadService } from "../../callers/workloads.ts";
import { algorithms } from "../../jwt-form.ts";
import { audited } from "../audit.ts";
import { principalOf } from "../auth.ts";
import {
  abilitySchema,
  callerLabels,
  type ApiScope,
  literals,
  named,
  noContent,
  nullable,
  patternList,
  requestBody,
  resourceName,
  textField,
  textList,
  timestamp,
  unconfirmedBy,
  unconfirmedHeader,
} from "../schemas.ts";

export type WorkloadRoutesOptions = { workloads: WorkloadService; nowMs: () => number };

const tags = ["workloads"];

const text = (longest: number, description: string, example?: string) =>
  Type.String({ minLength: 1, maxLength: longest, description, ...(example !== undefined && { example }) });

const claimPattern = text(500, "What the claim must be; * stands for any characters but / and :");

const jwksSchema = requestBody(
  "Jwks",
  {
    description: "The issuer's public keys (RFC 7517, section 5), if nothing is to be fetched",
    example: { keys: [{ kty: "EC", crv: "P-256", x: "f83OJ3D2xF1B", y: "x_FEzRu9m36H", kid: "k1" }] },
  },
  {
    keys: Type.Array(Type.Record(Type.String(), Type.Unknown()), {
      minItems: 1,
      maxItems: 20,
      description: "Public keys, each a JWK",
    }),
  },
);

const fields = {
  name: resourceName,
  issuer: text(500, "`iss` of its tokens, to the letter", "https://kubernetes.default.svc.cluster.local"),
  audience: text(500, "What `aud` of its tokens holds: a name that stands for this broker alone", "freshet"),
  algorithms: Type.Optional(
    Type.Array(literals(algorithms), {
      minItems: 1,
      uniqueItems: true,
      description: "How its tokens may be signed; without it, RS256 and ES256",
      example: ["RS256"],
    }),
  ),
  jwks: Type.Optional(jwksSchema),
  jwks_uri: Type.Optional(
    text(2000, "Where the issuer's public keys are; without it and without `jwks`, where its metadata say"),
  ),
  ca: Type.Optional(text(50_000, "Certificates (PEM) of the authorities that alone may vouch for the issuer's server")),
  networks: Type.Optional(
    Type.Array(text(100, "A CIDR block"), {
      maxItems: 50,
      description: "CIDR blocks outside the public internet from which the issuer's keys may be fetched",
      example: ["10.0.0.0/8"],
    }),
  ),
  match: Type.Record(
    Type.String(),
    Type.Union([claimPattern, Type.Array(claimPattern, { minItems: 1, maxItems: 50 })], {
      description: "A pattern, or several of which one must fit",
    }),
    {
      minProperties: 1,
      maxProperties: 20,
      description: "Claims that its tokens have, each with a pattern; a name that begins with / is a JSON pointer",
      example: { sub: "system:serviceaccount:shop:sync" },
    },
  ),
  abilities: Type.Array(abilitySchema, {
    minItems: 1,
    uniqueItems: true,
    description: "What it may do",
    example: ["tokens"],
  }),
  connections: patternList,
  labels: Type.Optional(callerLabels),
  expires_at: Type.Optional(
    Type.String({ format: "date-time", description: "When it ends; without it, when it is deleted" }),
  ),
};

const example = {
  name: "shop-sync",
  issuer: "https://kubernetes.default.svc.cluster.local",
  audience: "freshet",
  match: { sub: "system:serviceaccount:shop:sync" },
  abilities: ["tokens"],
  connections: ["acme-*"],
};

/** A workload as `POST /workloads` and WORKLOADS_FILE take it. */
export const newWorkload = requestBody("NewWorkload", { description: "A workload to declare", example }, fields);

const at = "2026-11-20T12:00:00.000Z";
const shownExample = { ...example, algorithms: ["RS256", "ES256"], networks: [], labels: {}, expires_at: null };

const workloadSchema = named(
  "Workload",
  {
    description: "A caller that shows tokens of its platform instead of a key",
    example: { ...shownExample, jwks: null, jwks_uri: null, ca: null, declared_in: "api", created_at: at },
  },
  {
    name: textField("Its name, also in paths"),
    issuer: textField("`iss` of its tokens, to the letter"),
    audience: textField("What `aud` of its tokens holds"),
    algorithms: textList("How its tokens may be signed"),
    jwks: nullable(Type.Record(Type.String(), Type.Unknown(), { description: "The issuer's keys; null: fetched" })),
    jwks_uri: nullable(textField("Where the issuer's keys are; null: where its metadata say, or they are given")),
    ca: nullable(textField("Certificates (PEM) that alone vouch for the issuer's server; null: the usual ones")),
    networks: textList("CIDR blocks outside the public internet from which the issuer's keys may be fetched"),
    match: Type.Record(Type.String(), Type.Unknown(), { description: "Claims, each with a pattern or a list of them" }),
    abilities: Type.Array(Type.String(), { description: "What it may do" }),
    connections: textList("Which connections it is for; * stands for any characters"),
    labels: Type.Record(Type.String(), Type.String(), { description: "What a connection must carry, too" }),
    expires_at: nullable(timestamp("When it ends; null: it does not")),
    declared_in: literals(["api", "file"], { description: "file: WORKLOADS_FILE, where alone it can be changed" }),
    created_at: nullable(timestamp("When it was declared; null: by the file")),
  },
);

const workloadListSchema = named(
  "WorkloadList",
  { description: "Workloads", example: { items: [], next_cursor: null } },
  {
    items: Type.Array(workloadSchema, { description: "Those of WORKLOADS_FILE, then the others, newest first" }),
    next_cursor: Type.Null({ description: "Always null: the list has one page" }),
  },
);

/** `/workloads`: callers that show tokens of their platform. */
export async function workloadRoutes(app: ApiScope, { workloads, nowMs }: WorkloadRoutesOptions): Promise<void> {
  const create = {
    operationId: "createWorkload",
    summary: "Declare a workload: a bearer JWT of its issuer is a caller like a key",
    description:
      "Nobody gives a workload abilities or patterns beyond their own, fewer labels than they are bound to, or a later end.",
    tags,
    problems: ["conflict"] as const,
    body: newWorkload,
    response: { 201: workloadSchema },
  };
  app.post(
    "/workloads",
    { schema: create, config: audited("workloads.create", "workload", "name") },
    async (request, reply) => {
      const workload = readWorkload(request.body);
      if (workload.expiresAt !== null && workload.expiresAt.getTime() <= nowMs()) {
        throw new BrokerError("invalid_request", "expires_at: must lie in the future.");
      }
      return await reply.code(201).send(viewWorkload(await workloads.create(principalOf(request), workload)));
    },
  );

  const list = {
    operationId: "listWorkloads",
    summary: "List workloads",
    description: "Those whose patterns lie within the caller's own, and which are bound to its labels.",
    tags,
    response: { 200: workloadListSchema },
  };
  app.get("/workloads", { schema: list }, async (request) => ({
    items: (await workloads.list(principalOf(request))).map(viewWorkload),
    next_cursor: null,
  }));

  app.delete(
    "/workloads/:name",
    {
      config: audited("workloads.delete", "workload", "name"),
      schema: {
        operationId: "deleteWorkload",
        summary: "Delete a workload: its tokens are refused from now on",
        description: unconfirmedHeader,
        tags,
        problems: ["not_found", "conflict"] as const,
        params: Type.Object({ name: textField("Name of the workload", "shop-sync") }),
        response: { 204: noContent },
      },
    },
    async (request, reply) => {
      const unconfirmed = await workloads.delete(principalOf(request), request.params.name);
      return await reply.code(204).headers(unconfirmedBy(unconfirmed)).send(null);
    },
  );
}

/** A declaration of the right shape, with what it leaves out. */
export function readWorkload(body: Static<typeof newWorkload>): Workload {
  const { jwks, jwks_uri, ca, networks = [], labels = {}, expires_at, algorithms: named_, ...same } = body;
  return {
    ...same,
    algorithms: named_ ?? ["RS256", "ES256"],
    jwks: jwks === undefined ? null : JSON.stringify(jwks),
    jwksUri: jwks_uri ?? null,
    ca: ca ?? null,
    networks,
    labels,
    expiresAt: expires_at === undefined ? null : new Date(expires_at),
  };
}

function viewWorkload(workload: Declared): Static<typeof workloadSchema> {
  const { name, issuer, audience, algorithms: signed, jwks, jwksUri, ca, networks, match, row } = workload;
  const { abilities, connections, labels, expiresAt } = workload;
  return {
    name,
    issuer,
    audience,
    algorithms: [...signed],
    jwks: jwks === null ? null : (JSON.parse(jwks) as Record<string, unknown>),
    jwks_uri: jwksUri,
    ca,
    networks: [...networks],
    match: { ...match },
    abilities: [...abilities],
    connections: [...connections],
    labels: { ...labels },
    expires_at: expiresAt?.toISOString() ?? null,
    declared_in: row === null ? "file" : "api",
    created_at: row?.createdAt.toISOString() ?? null,
  };
}
