import { type BrowserServer, chromium } from "playwright-core";
import type { TestProject } from "vitest/node";
import { hangMs } from "./patience.ts";
import { aptInstall, findOnPath, mayInstall } from "./services/surroundings.ts";

/** The shell comes first: the same engine without the windows around a page, whose drawing is half of the work of these tests. */
const names = ["chromium-headless-shell", "chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];

const flags = [
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
  "--disable-site-isolation-trials",
  "--renderer-process-limit=1",
  "--in-process-gpu",
];

/** The address of the Chromium that all browser tests share, or what a person does so that there is one. */
export type Chromium = { endpoint: string } | { remedy: string };

/** Starts Chromium for the browser tests; as root on Debian or Ubuntu it is installed. */
export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  const found = await findChromium();
  process.stdout.write("path" in found ? `tests use ${found.path}\n` : `no browser: ${found.remedy}\n`);
  let server: BrowserServer | undefined;
  if ("path" in found) {
    server = await chromium.launchServer({ executablePath: found.path, headless: true, args: flags, timeout: hangMs });
  }
  project.provide("chromium", server ? { endpoint: server.wsEndpoint() } : (found as { remedy: string }));
  return async () => await server?.close();
}

async function findChromium(): Promise<{ path: string } | { remedy: string }> {
  const path = (await firstOnPath()) ?? ((await installed()) ? await firstOnPath() : undefined);
  return path === undefined
    ? { remedy: "install chromium-headless-shell, or chromium, on the PATH (Debian packages of these names)" }
    : { path };
}

async function firstOnPath(): Promise<string | undefined> {
  for (const name of names) {
    const path = await findOnPath(name);
    if (path !== undefined) return path;
  }
  return undefined;
}

/** Not every release has the shell as a package. */
async function installed(): Promise<boolean> {
  return (await mayInstall()) && ((await aptInstall("chromium-headless-shell")) || (await aptInstall("chromium")));
}

declare module "vitest" {
  export interface ProvidedContext {
    chromium: Chromium;
  }
}
