import { parseAst } from "rolldown/parseAst";

/** A node of ESTree, as far as it is looked at here. */
type Node = {
  type: string;
  start: number;
  end: number;
  body?: Node;
  expression?: boolean;
  id?: { name?: string } | null;
  key?: { name?: string };
  init?: Node | null;
  value?: Node | null;
  right?: Node;
  left?: { name?: string };
};

/** A function that has a name in the source, or is given one by what it is assigned to. */
type NamedFunction = { name: string; node: Node };

/** The same source, whose named functions say that they are entered: by their file and name. Lines keep their numbers. */
export function instrument(file: string, text: string): string {
  const inserts: { at: number; text: string }[] = [];
  for (const { name, node } of namedFunctions(text)) {
    const call = `globalThis.enter(${JSON.stringify(`${file}:${name}`)})`;
    const { body } = node;
    if (!body) continue;
    if (body.type === "BlockStatement" || body.type === "FunctionBody") {
      inserts.push({ at: body.start + 1, text: `${call};` });
    } else {
      inserts.push({ at: body.start, text: `(${call}, ` }, { at: body.end, text: ")" });
    }
  }
  let result = text;
  // The last first, so that places keep their numbers; at one place, what was found later stands inside.
  for (const { at, text: added } of inserts.toSorted((a, b) => b.at - a.at)) {
    result = result.slice(0, at) + added + result.slice(at);
  }
  return result;
}

function namedFunctions(text: string): NamedFunction[] {
  const found: NamedFunction[] = [];
  const visit = (value: unknown): void => {
    if (Array.isArray(value)) return value.forEach(visit);
    if (typeof value !== "object" || value === null) return;
    const node = value as Node;
    const named = nameOf(node);
    if (named !== null) found.push(named);
    Object.values(value).forEach(visit);
  };
  visit(parseAst(text, { lang: "ts" }));
  return found;
}

function nameOf(node: Node): NamedFunction | null {
  const of = (name: string | undefined, held: Node | null | undefined) =>
    name !== undefined && held && isFunction(held) ? { name, node: held } : null;
  if (node.type === "FunctionDeclaration") return of(node.id?.name, node);
  if (node.type === "VariableDeclarator") return of(node.id?.name, node.init);
  if (node.type === "Property" || node.type === "MethodDefinition" || node.type === "PropertyDefinition") {
    return of(node.key?.name, node.value);
  }
  if (node.type === "AssignmentExpression") return of(node.left?.name, node.right);
  return null;
}

function isFunction({ type }: Node): boolean {
  return type === "ArrowFunctionExpression" || type === "FunctionExpression" || type === "FunctionDeclaration";
}
