import { fileURLToPath } from "node:url";
import { Type } from "typebox";
import { Value } from "typebox/value";
import { checkWorkload, overlap, type SharedIssuers, type Workload } from "../callers/workload.ts";
import { StartupError } from "../errors.ts";
import { newWorkload, readWorkload } from "../http/routes/workloads.ts";
import { misfitsOf } from "../providers/load/check-definition.ts";
import { type Problem, readYaml, type YamlSource } from "../providers/load/yaml-source.ts";
import { projectRoot } from "../root.ts";

export type ReadWorkloads = { file: readonly Workload[]; shared: SharedIssuers };

const sharedFile = fileURLToPath(new URL("issuers/shared.yaml", projectRoot));

const sharedSchema = Type.Object({
  issuers: Type.Array(
    Type.Object({ issuers: Type.Array(Type.String()), owner: Type.Record(Type.String(), Type.String()) }),
  ),
});

/**
 * The workloads of WORKLOADS_FILE, a map with a list `workloads`, each with the fields of `POST /workloads`; and which issuers give tokens to
 * everybody. @throws StartupError with one line for each fault, as `file:line:column: text`
 */
export function readWorkloads(path: string | null): ReadWorkloads {
  const shared = readShared();
  if (path === null) return { file: [], shared };
  const read = readYaml(path, { what: "a list `workloads`", example: "workloads: []" });
  if ("problems" in read) throw refused(read.problems);
  const { file, problems } = checkFile(read.source, shared);
  if (problems.length > 0) {
    throw refused(problems.map((problem) => `${read.source.locate(problem.path)}: ${say(problem)}`));
  }
  return { file, shared };
}

function readShared(): SharedIssuers {
  const read = readYaml(sharedFile);
  if ("problems" in read) throw refused(read.problems);
  if (!Value.Check(sharedSchema, read.source.value)) {
    throw refused([`${sharedFile}:1:1: it does not have the form of such a file`]);
  }
  return read.source.value.issuers;
}

function checkFile({ value }: YamlSource, shared: SharedIssuers): { file: Workload[]; problems: Problem[] } {
  const problems: Problem[] = Object.keys(value)
    .filter((name) => name !== "workloads")
    .map((name) => ({ path: [name], text: "unknown setting; the file holds a list `workloads`" }));
  const { workloads } = value;
  if (!Array.isArray(workloads)) {
    return {
      file: [],
      problems: [...problems, { path: ["workloads"], text: "must be a list, each of its items a workload" }],
    };
  }
  const file: Workload[] = [];
  for (const [at, declared] of workloads.entries()) {
    const place = ["workloads", String(at)];
    const misfits = isMap(declared) ? misfitsOf(newWorkload, declared) : [{ path: [], text: "must be a map" }];
    const workload = misfits.length === 0 && Value.Check(newWorkload, declared) ? readWorkload(declared) : null;
    const faults: Problem[] = workload === null ? misfits : checkWorkload(workload, shared);
    problems.push(...faults.map(({ path, text }) => ({ path: [...place, ...path], text })));
    if (workload === null) continue;
    if (file.some(({ name }) => name === workload.name)) {
      problems.push({ path: [...place, "name"], text: "stands twice in this file" });
    }
    const same = file.find((other) => overlap(workload, other));
    if (same !== undefined) {
      problems.push({
        path: [...place, "match"],
        text: `every token of one of the two would be one of ${same.name}, too: name more claims`,
      });
    }
    file.push(workload);
  }
  return { file, problems };
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The field, without the list that the place in the file tells. */
function say({ path, text }: Problem): string {
  const field = path.slice(path[0] === "workloads" ? 2 : 0).join(".");
  return field === "" ? text : `${field}: ${text}`;
}

function refused(lines: readonly string[]): StartupError {
  const named = lines.map((line) => `WORKLOADS_FILE: ${line}`);
  return new StartupError(named.join("; "), named);
}
