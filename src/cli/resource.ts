/** An answer of the API, as it came. */
export type Resource = Record<string, unknown>;

/** True for a JSON object. */
export function isResource(value: unknown): value is Resource {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

/** The JSON object that a text holds; null when it is none. A parser's error would quote the text, secrets and all. */
export function parseResource(text: string): Resource | null {
  try {
    const value: unknown = JSON.parse(text);
    return isResource(value) ? value : null;
  } catch {
    return null;
  }
}

/** The objects in a list of the API. */
export function resourcesIn(value: unknown): Resource[] {
  return Array.isArray(value) ? value.filter((item) => isResource(item)) : [];
}

/** A field's text; a number's digits; else nothing. */
export function textOf(value: unknown): string {
  return typeof value === "string" || typeof value === "number" || typeof value === "boolean" ? String(value) : "";
}
