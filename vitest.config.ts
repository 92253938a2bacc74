import { defineConfig } from "vitest/config";
import { faultPlugins, faultSetup, isInstrumented } from "./test/support/faults/vite-plugin.ts";

// Only where the environment asks for failpoints, or for a guard to be removed.
const plugins = faultPlugins();
const setupFiles = faultSetup();
const campaign = "test/integration/campaign.test.ts";
const services = "test/support/services/global-setup.ts";

/** The embedded database is compiled once, and not again to be faster: a test would not live to see it. */
const plainWasm = ["--liftoff-only"];

/** Projects run one group after the other, so that a browser never competes with a fleet of brokers for two cores. */
export default defineConfig({
  test: {
    reporters: ["default", ["json", { outputFile: process.env["TEST_REPORT"] ?? "test-report.json" }]],
    retry: 0,
    // A module that was changed on the way must not be kept for the next run.
    fsModuleCache: !isInstrumented(),
    // It warns of its own development settings, which are what a test wants.
    onConsoleLog: (text) => !text.startsWith("oidc-provider "),
    teardownTimeout: 30_000,
    projects: [
      {
        plugins,
        test: {
          name: "unit",
          setupFiles,
          include: ["test/unit/**/*.test.ts"],
          isolate: false, // half of the work would be loading the same modules for each file
          execArgv: plainWasm,
          maxWorkers: 2,
          testTimeout: 10_000,
          // The embedded database is compiled when the first test of a file opens it.
          hookTimeout: 60_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        plugins,
        test: {
          name: "providers",
          setupFiles,
          include: ["test/providers/**/*.test.ts"],
          isolate: false,
          maxWorkers: 2,
          testTimeout: 10_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        plugins,
        test: {
          name: "contract",
          setupFiles,
          include: ["test/contract/**/*.test.ts"],
          execArgv: plainWasm,
          isolate: false, // its files share modules, and the embedded database of their worker
          maxWorkers: 2,
          globalSetup: services,
          testTimeout: 30_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 2 },
        },
      },
      {
        plugins,
        test: {
          name: "integration",
          setupFiles,
          include: ["test/integration/**/*.test.ts"],
          exclude: [campaign],
          globalSetup: services,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: 3, // they wait more than they work: for permits, tokens and processes
          sequence: { groupOrder: 3 },
        },
      },
      {
        plugins,
        test: {
          name: "campaign",
          setupFiles,
          include: [campaign],
          globalSetup: services,
          testTimeout: 180_000,
          hookTimeout: 180_000,
          sequence: { groupOrder: 4 }, // by itself: its fleets of brokers would starve the others
        },
      },
      {
        plugins,
        test: {
          name: "browser",
          setupFiles,
          include: ["test/browser/**/*.test.ts"],
          globalSetup: [services, "test/support/browser-setup.ts"],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: 2,
          sequence: { groupOrder: 5 },
        },
      },
    ],
  },
});
