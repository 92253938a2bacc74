import { chosenMutation, instrument, isInstrumented } from "./instrument.ts";

export { isInstrumented } from "./instrument.ts";

type Plugin = { name: string; enforce: "pre"; transform(code: string, id: string): string | null };

/** For vitest: what `preload.ts` is for processes. None unless the environment asks for failpoints or a mutation. */
export function faultPlugins(): Plugin[] {
  if (!isInstrumented()) return [];
  chosenMutation(); // a wrong name is told at once
  return [{ name: "faults", enforce: "pre", transform }];
}

function transform(code: string, id: string): string | null {
  return instrument(id.replace(/[?#].*$/, ""), code);
}

/** The set-up file that makes the calls of armed failpoints. */
export function faultSetup(): string[] {
  return isInstrumented() ? ["test/support/faults/vitest-setup.ts"] : [];
}
