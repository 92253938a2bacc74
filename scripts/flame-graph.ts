import { readFileSync, writeFileSync } from "node:fs";
import { fileURLToPath } from "node:url";

/**
 * A flame graph of a .cpuprofile of V8 as an SVG that needs no script: `node scripts/flame-graph.ts IN.cpuprofile OUT.svg`. Each box is a function
 * that was called by the box below it, as wide as its share of the time; the pointer on it shows both shares and the place in the code.
 */
type CallFrame = { functionName: string; url: string; lineNumber: number };
export type CpuProfile = {
  nodes: { id: number; callFrame: CallFrame; children?: number[] }[];
  samples?: number[];
  timeDeltas?: number[];
};

/** `selfMs`: without what it called. */
export type Entry = { name: string; place: string; selfMs: number };
type Box = Entry & { totalMs: number; callees: Map<string, Box> };

const root = new URL("../", import.meta.url).href;
const size = { width: 1400, row: 19, margin: 8, head: 64, character: 6.7, narrowest: 1 };
const kinds = [
  { kind: "Freshet", color: "#f2a65a", isOf: (place: string) => place.startsWith("src/") },
  { kind: "packages", color: "#b8d8a0", isOf: (place: string) => place.startsWith("node_modules/") },
  { kind: "Node's JavaScript", color: "#a9c7e8", isOf: (place: string) => place.startsWith("node:") },
  { kind: "Node's C++, V8 and the kernel", color: "#d9c2e6", isOf: () => true },
] as const;

export function flameGraph(profile: CpuProfile, title: string): string {
  const all = boxesOf(profile);
  const depth = depthOf(all, all.totalMs);
  const height = size.head + depth * size.row + size.margin;
  const legend = kinds.map(({ kind, color }, index) => {
    const x = size.margin + index * 210;
    return `<rect x="${x}" y="34" width="14" height="14" fill="${color}"/><text x="${x + 20}" y="45">${escape(kind)}</text>`;
  });
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${size.width} ${height}" font-family="monospace" font-size="11">`,
    `<rect width="${size.width}" height="${height}" fill="#fff"/>`,
    `<text x="${size.margin}" y="20" font-size="14">${escape(title)}</text>`,
    ...legend,
    ...draw(all, { left: size.margin, level: 0, height, all }),
    "</svg>\n",
  ].join("\n");
}

/** The functions with the most time of their own, wherever they are called, and their share of all. */
export function largest(profile: CpuProfile, count: number): (Pick<Entry, "name" | "place"> & { share: number })[] {
  const sums = new Map<string, Entry>();
  const all = boxesOf(profile);
  const walk = (box: Box): void => {
    const key = `${box.name} ${box.place}`;
    const sum = sums.get(key) ?? { name: box.name, place: box.place, selfMs: 0 };
    sum.selfMs += box.selfMs;
    sums.set(key, sum);
    for (const callee of box.callees.values()) walk(callee);
  };
  walk(all);
  const sorted = [...sums.values()].sort((a, b) => b.selfMs - a.selfMs);
  return sorted.slice(0, count).map(({ name, place, selfMs }) => ({ name, place, share: selfMs / all.totalMs }));
}

/** The tree of calls. Functions of one name and place that one caller calls are one box. */
function boxesOf({ nodes, samples = [], timeDeltas = [] }: CpuProfile): Box {
  const selfMs = new Map<number, number>();
  for (const [index, id] of samples.entries()) {
    selfMs.set(id, (selfMs.get(id) ?? 0) + (timeDeltas[index] ?? 0) / 1000);
  }
  const byId = new Map(nodes.map((node) => [node.id, node]));
  const all: Box = { name: "all", place: "", selfMs: 0, totalMs: 0, callees: new Map() };
  const add = (id: number, caller: Box): number => {
    const node = byId.get(id);
    if (node === undefined || isLeftOut(node.callFrame)) return 0;
    const place = placeOf(node.callFrame);
    const name = node.callFrame.functionName || `(${place.replace(/^.*\//, "")})`;
    const key = `${name} ${place}`;
    const box: Box = caller.callees.get(key) ?? { name, place, selfMs: 0, totalMs: 0, callees: new Map() };
    caller.callees.set(key, box);
    const own = selfMs.get(id) ?? 0;
    const total = (node.children ?? []).reduce((sum, child) => sum + add(child, box), own);
    box.selfMs += own;
    box.totalMs += total;
    return total;
  };
  const [first] = nodes;
  for (const child of first?.children ?? []) all.totalMs += add(child, all);
  return all;
}

/** Waiting for work, and the profiler. */
function isLeftOut({ functionName, url }: CallFrame): boolean {
  return functionName === "(idle)" || url === "node:inspector";
}

/** From the project's root, so that the picture shows nothing of the machine. */
function placeOf({ url, lineNumber }: CallFrame): string {
  const path = url.startsWith(root) ? url.slice(root.length) : url.replace(/^.*\/node_modules\//, "node_modules/");
  return path === "" ? "" : `${path}:${lineNumber + 1}`;
}

const widthOf = (box: Box, all: Box) => (box.totalMs / all.totalMs) * (size.width - 2 * size.margin);

function depthOf(box: Box, allMs: number): number {
  const isDrawn = (box.totalMs / allMs) * (size.width - 2 * size.margin) >= size.narrowest;
  return isDrawn ? 1 + Math.max(0, ...[...box.callees.values()].map((callee) => depthOf(callee, allMs))) : 0;
}

function draw(box: Box, at: { left: number; level: number; height: number; all: Box }): string[] {
  const { left, level, height, all } = at;
  const width = widthOf(box, all);
  if (width < size.narrowest) return [];
  const y = height - size.margin - (level + 1) * size.row;
  const percent = (ms: number) => `${((100 * ms) / all.totalMs).toFixed(1)} %`;
  const place = box.place === "" ? "" : ` (${box.place})`;
  const told = `${box.name}${place}: ${percent(box.totalMs)}, of its own ${percent(box.selfMs)}`;
  const color = kinds.find(({ isOf }) => isOf(box.place))?.color ?? "#ccc";
  const room = Math.floor((width - 6) / size.character);
  const label = box.name.length <= room ? box.name : room >= 4 ? `${box.name.slice(0, room - 1)}…` : "";
  const text = label === "" ? "" : `<text x="${(left + 3).toFixed(1)}" y="${y + 13}">${escape(label)}</text>`;
  const shape = `<rect x="${left.toFixed(1)}" y="${y}" width="${width.toFixed(1)}" height="${size.row - 1}" fill="${color}" stroke="#fff" stroke-width="0.5"/>`;
  const drawn = [`<g><title>${escape(told)}</title>${shape}${text}</g>`];
  let next = left;
  for (const callee of [...box.callees.values()].sort((a, b) => b.totalMs - a.totalMs)) {
    drawn.push(...draw(callee, { left: next, level: level + 1, height, all }));
    next += widthOf(callee, all);
  }
  return drawn;
}

function escape(text: string): string {
  return text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll('"', "&quot;");
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const [, , from, to] = process.argv;
  if (from === undefined || to === undefined) {
    throw new Error("usage: node scripts/flame-graph.ts IN.cpuprofile OUT.svg");
  }
  writeFileSync(to, flameGraph(JSON.parse(readFileSync(from, "utf8")) as CpuProfile, from));
}
