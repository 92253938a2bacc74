import { CliError } from "../errors.ts";

/** What a command ends with whose definition file has these faults, each of which `tell` says before. */
export function endOnFaults(file: string, problems: readonly string[], tell: (problem: string) => void): CliError {
  const [first = "", ...more] = problems;
  if (more.length === 0 && first.startsWith(`${file}: cannot be read`)) {
    return new CliError(first, "invalid_provider_file");
  }
  problems.forEach(tell);
  const places = `${problems.length} place${problems.length === 1 ? "" : "s"}`;
  return new CliError(`${file} is wrong in ${places}`, "invalid_provider_file");
}
