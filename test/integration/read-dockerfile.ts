/** One instruction of a Dockerfile: its name, its `--flags`, and the rest as it stands there. */
export type Instruction = { name: string; flags: Record<string, string>; rest: string };

/** A stage: its name (or number) and its instructions, the FROM left out. */
export type Stage = { name: string; instructions: Instruction[] };

/** The stages of a Dockerfile, in order. Heredocs are not understood. */
export function readDockerfile(content: string): Stage[] {
  const stages: Stage[] = [];
  for (const line of logicalLines(content)) {
    const instruction = readInstruction(line);
    if (instruction.name === "FROM") {
      stages.push({ name: / AS (\S+)$/i.exec(instruction.rest)?.[1] ?? String(stages.length), instructions: [] });
    } else {
      stages.at(-1)?.instructions.push(instruction);
    }
  }
  return stages;
}

/** What stands last wins: CMD, USER, WORKDIR and the like. */
export function lastRest(stage: Stage, name: string): string {
  const found = stage.instructions.findLast((instruction) => instruction.name === name);
  if (found === undefined) throw new Error(`The stage ${stage.name} has no ${name}`);
  return found.rest;
}

/** `ENV a=b c=d`, with `$PATH` as the only variable that is understood. */
export function readEnv(stage: Stage, path: string): Record<string, string> {
  const pairs = stage.instructions.filter(({ name }) => name === "ENV").flatMap(({ rest }) => rest.split(/\s+/));
  return Object.fromEntries(
    pairs.map((pair) => {
      const [, name = "", value = ""] = /^([^=]+)=(.*)$/.exec(pair) ?? [];
      return [name, value.replace("$PATH", path)];
    }),
  );
}

/** The exec form of CMD and of HEALTHCHECK's CMD. */
export function readExecForm(rest: string): string[] {
  const parsed: unknown = JSON.parse(rest.slice(rest.indexOf("[")));
  if (!Array.isArray(parsed)) throw new Error(`Not in exec form: ${rest}`);
  return parsed.map(String);
}

function logicalLines(content: string): string[] {
  const lines = content.split("\n").filter((line) => !/^\s*#/.test(line));
  return lines
    .join("\n")
    .replaceAll(/\\\n\s*/g, "")
    .split("\n")
    .filter((line) => line.trim() !== "");
}

function readInstruction(line: string): Instruction {
  const [, name = "", tail = ""] = /^\s*([A-Z]+)\s+(.*)$/i.exec(line) ?? [];
  const flags = [...(/^(?:--\S+\s+)*/.exec(tail)?.[0].matchAll(/--([a-z-]+)=(\S+)/g) ?? [])];
  return {
    name: name.toUpperCase(),
    flags: Object.fromEntries(flags.map(([, flag = "", value = ""]) => [flag, value])),
    rest: tail.replace(/^(?:--\S+\s+)*/, "").trim(),
  };
}
