import { BaseSequencer, type TestSpecification } from "vitest/node";

/**
 * What takes longest, the longest of each project first. Until it has run them once, vitest begins with the largest files, and would come to
 * these at the end, with one core left idle: they get their cases from other files, or wait for what they start.
 */
const longest = [
  "unit/consent/consent",
  "providers/settings",
  "contract/databases",
  "contract/audit",
  "contract/rotation",
  "browser/endings",
  "browser/first-steps",
  "integration/image",
  "integration/access",
  "integration/rotation",
  "integration/app-completion",
  "integration/wrong-input",
  "integration/audit-outages",
].map((name) => `/test/${name}.test.ts`);

export class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const usual = await super.sort(files);
    const projects = [...new Set(usual.map(({ project }) => project))];
    return usual.toSorted(
      (one, other) => projects.indexOf(one.project) - projects.indexOf(other.project) || place(one) - place(other),
    );
  }
}

function place({ moduleId }: TestSpecification): number {
  const found = longest.findIndex((path) => moduleId.endsWith(path));
  return found === -1 ? longest.length : found;
}
