import { defineConfig } from "vitest/config";
import { oneHelper } from "./test/support/one-helper.ts";
import { hangMs } from "./test/support/patience.ts";
import { LongestFirst } from "./test/support/longest-first.ts";
import { faultPlugins, faultSetup, isInstrumented } from "./test/support/faults/vite-plugin.ts";

// Only where the environment asks for failpoints, or for a guard to be removed.
const plugins = faultPlugins();
const setupFiles = faultSetup();
const services = "test/support/services/global-setup.ts";

/** Only a hang ends a test: test/support/patience.ts says why. Without one of the guards some tests do hang, which is what is to be seen. */
const limitMs = process.env["MUTATION"] ? hangMs / 10 : hangMs;
const patient = {
  testTimeout: limitMs,
  hookTimeout: limitMs,
  expect: { poll: { timeout: limitMs, interval: 50 } },
};

/** What works comes first, one worker a core; what mostly waits runs together after it. */
export default defineConfig({
  test: {
    reporters: ["default", ["json", { outputFile: process.env["TEST_REPORT"] ?? "test-report.json" }]],
    retry: 0,
    execArgv: [oneHelper],
    sequence: { sequencer: LongestFirst },
    // A module that was changed on the way must not be kept for the next run.
    fsModuleCache: !isInstrumented(),
    // It warns of its own development settings, which are what a test wants.
    onConsoleLog: (text) => !text.startsWith("oidc-provider "),
    teardownTimeout: limitMs,
    projects: [
      {
        plugins,
        test: {
          name: "unit",
          setupFiles,
          ...patient,
          include: ["test/unit/**/*.test.ts"],
          isolate: false, // half of the work would be loading the same modules for each file
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        plugins,
        test: {
          name: "providers",
          setupFiles,
          ...patient,
          include: ["test/providers/**/*.test.ts"],
          isolate: false,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        plugins,
        test: {
          name: "contract",
          setupFiles,
          ...patient,
          include: ["test/contract/**/*.test.ts"],
          isolate: false, // its files share modules, and the embedded database of their worker
          maxWorkers: 2,
          globalSetup: services,
          sequence: { groupOrder: 2 },
        },
      },
      {
        plugins,
        test: {
          name: "integration",
          setupFiles,
          isolate: false, // as for the unit tests
          ...patient,
          include: ["test/integration/**/*.test.ts"],
          globalSetup: services,
          maxWorkers: 3, // they wait more than they work: for permits, tokens and processes
          sequence: { groupOrder: 3 },
        },
      },
      {
        plugins,
        test: {
          name: "browser",
          setupFiles,
          ...patient,
          include: ["test/browser/**/*.test.ts"],
          globalSetup: [services, "test/support/browser-setup.ts"],
          maxWorkers: 3, // with the integration tests, whose waits leave it enough
          sequence: { groupOrder: 3 },
        },
      },
    ],
  },
});
