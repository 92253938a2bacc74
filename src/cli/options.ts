import { type Command, InvalidArgumentError, Option } from "commander";
import { didYouMean } from "../text.ts";
import { UsageError } from "./errors.ts";

/** For an option that may be given several times. */
export function collect(value: string, previous: string[] = []): string[] {
  return [...previous, value];
}

/** For an option that may be given several times, each time with the name of an input. */
export function collectName(value: string, previous: string[] = []): string[] {
  if (!/^[a-z][a-z0-9_]*$/.test(value)) throw new InvalidArgumentError("It must be the name alone.");
  return [...previous, value];
}

/** For `key=value` options that may be given several times. */
export function collectPair(value: string, previous: Record<string, string> = {}): Record<string, string> {
  const at = value.indexOf("=");
  if (at < 1) throw new InvalidArgumentError("It must look like key=value.");
  return { ...previous, [value.slice(0, at)]: value.slice(at + 1) };
}

/** A whole number from 0. */
export function wholeNumber(value: string): number {
  if (!/^\d{1,15}$/.test(value)) throw new InvalidArgumentError("It must be a whole number, 0 or more.");
  return Number(value);
}

/** For an option that may be given several times, each time with one of these words. */
export function collectOf(allowed: readonly string[]): (value: string, previous?: string[]) => string[] {
  return (value, previous = []) => {
    if (allowed.includes(value)) return [...previous, value];
    throw new InvalidArgumentError(`It must be one of ${allowed.join(", ")}.${didYouMean(value, allowed)}`);
  };
}

/** An option that takes one of these words. */
export function choice(flags: string, description: string, allowed: readonly string[]): Option {
  return new Option(flags, description).argParser((value: string) => {
    if (allowed.includes(value)) return value;
    throw new InvalidArgumentError(`It must be one of ${allowed.join(", ")}.${didYouMean(value, allowed)}`);
  });
}

/** @throws UsageError naming the options of an update, where none of them is given */
export function requireChange(changes: object, options: string): void {
  if (Object.values(changes).some((value) => value !== undefined)) return;
  throw new UsageError(`Nothing to change: give ${options}`);
}

/** Ends a command's help with lines that can be pasted. */
export function example(command: Command, ...lines: string[]): Command {
  const title = lines.length === 1 ? "Example:" : "Examples:";
  return command.addHelpText("after", ["", title, ...lines.map((line) => `  freshet ${line}`)].join("\n"));
}
