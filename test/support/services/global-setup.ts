import type { TestProject } from "vitest/node";
import { type Services, startSuite, type Suite } from "./suite.ts";

// Projects set up one by one, each in a module graph of its own; they share the servers of this process.
declare global {
  var freshetSuite: { users: number; suite: Promise<Suite> } | undefined;
}

export default async function setup(project: TestProject): Promise<() => Promise<void>> {
  globalThis.freshetSuite ??= { users: 0, suite: announced() };
  const entry = globalThis.freshetSuite;
  entry.users++;
  project.provide("services", (await entry.suite).services);
  return async () => {
    entry.users--;
    if (entry.users > 0) return;
    globalThis.freshetSuite = undefined;
    await (await entry.suite).stop();
  };
}

async function announced(): Promise<Suite> {
  const suite = await startSuite();
  process.stdout.write(`tests use ${suite.line}\n`);
  return suite;
}

declare module "vitest" {
  export interface ProvidedContext {
    services: Services;
  }
}
