import { fitsCapture } from "./captures.ts";
import type { CaptureKnobs } from "./knob-types.ts";
import { placedLookups, type ProviderFile } from "./provider-file.ts";
import { templateNames } from "./template.ts";
import type { Problem } from "./yaml-source.ts";

type ResponseKnobs = NonNullable<ProviderFile["response"]>;
type ExtraKnobs = NonNullable<ResponseKnobs["extra_tokens"]>[number];
type LifetimeKnobs = NonNullable<ResponseKnobs["expires"]>;

/** Knobs of answers and lookups that need or exclude each other. */
export function checkAnswers(file: ProviderFile): Problem[] {
  return [
    ...checkLifetimes(file),
    ...checkCaptures(file),
    ...checkExtraTokens(file),
    ...checkLookups(file),
    ...checkParallelSets(file),
  ];
}

type PlacedLifetime = [string[], LifetimeKnobs | undefined];

function extraLifetimes(extra: ExtraKnobs, index: string): PlacedLifetime[] {
  const path = ["response", "extra_tokens", index];
  return [
    [[...path, "expires"], extra.expires],
    [[...path, "refresh_expires"], extra.refresh_expires],
    [[...path, "refreshed", "expires"], extra.refreshed?.expires],
    [[...path, "refreshed", "refresh_expires"], extra.refreshed?.refresh_expires],
  ];
}

function checkLifetimes({ response = {}, introspection, issuer }: ProviderFile): Problem[] {
  const lifetimes: PlacedLifetime[] = [
    [["response", "expires"], response.expires],
    [["response", "refresh_expires"], response.refresh_expires],
    ...(response.extra_tokens ?? []).flatMap((extra, index) => extraLifetimes(extra, String(index))),
    [["introspection", "expires"], introspection?.expires],
  ];
  return lifetimes.flatMap(([path, lifetime]) => {
    if (lifetime === undefined) return [];
    if (lifetime.from === "fixed" && lifetime.fallback === undefined) {
      return [{ path, text: "`from: fixed` needs the life in `fallback`" }];
    }
    if (lifetime.unit === "iso" && lifetime.from !== "expires_at") {
      return [{ path, text: "`unit: iso` goes with `from: expires_at`" }];
    }
    const canAsk = path[0] === "response" && path[1] === "expires" && (introspection || issuer !== undefined);
    return lifetime.from === "introspect" && !canAsk
      ? [{ path, text: "`from: introspect` is for the access token, and needs `introspection`" }]
      : [];
  });
}

function checkCaptures(file: ProviderFile): Problem[] {
  const placed: [string[], CaptureKnobs | undefined][] = [
    [["authorization", "callback", "capture"], file.authorization?.callback?.capture],
    [["response", "capture"], file.response?.capture],
    ...placedLookups(file).map(({ path, lookup }): [string[], CaptureKnobs | undefined] => [
      [...path, "capture"],
      lookup.capture,
    ]),
  ];
  return placed.flatMap(([path, captures]) =>
    Object.entries(captures ?? {}).flatMap(([name, capture]) => checkCapture(file, [...path, name], capture)),
  );
}

function checkCapture({ inputs = {} }: ProviderFile, path: string[], capture: CaptureKnobs[string]): Problem[] {
  if (typeof capture === "string") return [];
  const { pattern, enum: allowed, default: standIn } = capture;
  if (pattern === undefined && allowed === undefined) {
    return [{ path, text: "needs a `pattern` or an `enum`; without either, write the place alone" }];
  }
  if (pattern !== undefined && allowed !== undefined) return [{ path, text: "either `pattern` or `enum`, not both" }];
  if (standIn === undefined) return [];
  const place = [...path, "default"];
  const names = templateNames(standIn).filter((name) => name.startsWith("inputs."));
  const free = names.find((name) => inputs[name.slice(7)]?.enum === undefined);
  if (free !== undefined) {
    return [{ path: place, text: `{${free}} needs an \`enum\` of its own, so that every default is known here` }];
  }
  const values = names.reduce(
    (texts, name) =>
      texts.flatMap((text) => (inputs[name.slice(7)]?.enum ?? []).map((value) => text.replaceAll(`{${name}}`, value))),
    [standIn],
  );
  const rule = { pattern: pattern ?? null, allowed: allowed ?? null };
  const odd = values.find((value) => !value.includes("{") && !fitsCapture(value, rule));
  return odd === undefined
    ? []
    : [{ path: place, text: `${odd} ${allowed ? "is not in its `enum`" : "does not fit its `pattern`"}` }];
}

function checkExtraTokens({ response = {} }: ProviderFile): Problem[] {
  const extras = response.extra_tokens ?? [];
  return extras.flatMap((extra, index) => {
    const path = ["response", "extra_tokens", String(index)];
    const problems: Problem[] = [];
    if (extras.findIndex(({ name }) => name === extra.name) < index) {
      problems.push({ path: [...path, "name"], text: `\`${extra.name}\` is the name of another extra token too` });
    }
    if (!extra.exchange && extra.access_token === undefined) {
      problems.push({ path, text: "an extra token needs the `access_token` it is at, or an `exchange`" });
    }
    return problems;
  });
}

function checkLookups(file: ProviderFile): Problem[] {
  return placedLookups(file).flatMap(({ path, lookup }) => {
    const { request, value, pointer, label, select, capture } = lookup;
    if ((request === undefined) === (value === undefined)) {
      return [{ path, text: "a lookup has either a `request` or a `value`" }];
    }
    if (request === undefined && (pointer ?? label ?? select ?? capture) !== undefined) {
      return [{ path, text: "`pointer`, `label`, `select` and `capture` read the answer of a `request`" }];
    }
    return select !== undefined && (select.where === undefined) !== (select.equals === undefined)
      ? [{ path: [...path, "select"], text: "`where` goes with `equals`" }]
      : [];
  });
}

function checkParallelSets({ parallel_sets: sets, inputs = {} }: ProviderFile): Problem[] {
  if (typeof sets !== "object") return [];
  const path = ["parallel_sets", "single_per"];
  return sets.single_per.flatMap((key) => {
    if (!key.startsWith("inputs.")) return [];
    const name = key.slice(7);
    if (!Object.hasOwn(inputs, name)) return [{ path, text: `\`${key}\` is not declared in \`inputs\`` }];
    return inputs[name]?.secret ? [{ path, text: `\`${key}\` is a secret, and secrets are not compared` }] : [];
  });
}
