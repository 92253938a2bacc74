import { type TObject, type TSchema, Type } from "typebox";

/** What the knobs of a provider file are made of. Each takes the sentence that editors and the documentation show. */
export const strict = { additionalProperties: false } as const;

const longestSeconds = 315_360_000;
export const pointerPattern = "^(/[^/]*)+$";
export const namePattern = "^[a-z][a-z0-9_]*$";

export const nullable = <T>(type: string, more: Record<string, unknown> = {}) =>
  Type.Unsafe<T | null>({ type: [type, "null"], ...more });

export const map = <T extends Record<string, TSchema>>(description: string, properties: T) =>
  Type.Optional(Type.Object(properties, { ...strict, description }));

/** Null switches off what the extended definition has. */
export const mapOrNull = <T extends TObject>(schema: T) =>
  Type.Optional(Type.Unsafe<Type.Static<T> | null>({ ...schema, type: ["object", "null"] }));

export const text = (description: string) => Type.Optional(Type.String({ minLength: 1, description }));
export const textOrNull = (description: string) =>
  Type.Optional(nullable<string>("string", { minLength: 1, description }));
export const flag = (description: string) => Type.Optional(Type.Boolean({ description }));
export const choice = <T extends string>(values: readonly T[], description: string) =>
  Type.Optional(Type.Enum([...values], { description }));

export const seconds = (description: string) =>
  Type.Optional(Type.Integer({ minimum: 0, maximum: longestSeconds, description }));
export const secondsOrNull = (description: string) =>
  Type.Optional(nullable<number>("integer", { minimum: 1, maximum: longestSeconds, description }));
export const count = (maximum: number, description: string) =>
  Type.Optional(Type.Integer({ minimum: 1, maximum, description }));

export const pointer = (description: string) => Type.Optional(Type.String({ pattern: pointerPattern, description }));

/** `null` takes out an entry that the extended definition has. */
export const templates = (description: string) =>
  Type.Optional(Type.Record(Type.String(), nullable<string>("string"), { description }));

/** What a file says of captures. A text is the place alone. */
export type CaptureKnobs = Readonly<
  Record<string, string | { pointer?: string; param?: string; pattern?: string; enum?: string[]; default?: string }>
>;

/** Name → where the value is, or a map of that and what the value must be: a pattern, or one of a list. */
export const captures = (where: "pointer" | "param", description: string, more: { hasDefault: boolean }) => {
  const place = where === "pointer" ? { type: "string", pattern: pointerPattern } : { type: "string", minLength: 1 };
  const entry = Type.Unsafe<CaptureKnobs[string]>({
    type: ["string", "object"],
    ...(where === "pointer" ? { pattern: pointerPattern } : { minLength: 1 }),
    properties: {
      [where]: place,
      pattern: { type: "string", minLength: 1 },
      enum: { type: "array", items: { type: "string", minLength: 1 }, minItems: 1 },
      ...(more.hasDefault && { default: { type: "string", minLength: 1 } }),
    },
    required: [where],
    additionalProperties: false,
  });
  return Type.Optional(Type.Record(Type.String({ pattern: namePattern }), entry, { ...strict, description }));
};
