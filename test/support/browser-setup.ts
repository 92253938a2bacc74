import type { TestProject } from "vitest/node";
import { aptInstall, findOnPath, mayInstall } from "./services/surroundings.ts";

const names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

/** Where Chromium is, or what a person does so that there is one. */
export type Chromium = { path: string } | { remedy: string };

/** Finds Chromium for the browser tests; as root on Debian or Ubuntu it is installed. */
export default async function setup(project: TestProject): Promise<void> {
  const chromium = await findChromium();
  process.stdout.write("path" in chromium ? `tests use ${chromium.path}\n` : `no browser: ${chromium.remedy}\n`);
  project.provide("chromium", chromium);
}

async function findChromium(): Promise<Chromium> {
  const path = (await firstOnPath()) ?? ((await installed()) ? await firstOnPath() : undefined);
  return path === undefined ? { remedy: "install chromium (Debian package chromium) on the PATH" } : { path };
}

async function firstOnPath(): Promise<string | undefined> {
  for (const name of names) {
    const path = await findOnPath(name);
    if (path !== undefined) return path;
  }
  return undefined;
}

async function installed(): Promise<boolean> {
  return (await mayInstall()) && (await aptInstall("chromium"));
}

declare module "vitest" {
  export interface ProvidedContext {
    chromium: Chromium;
  }
}
