import { defineConfig } from "vitest/config";

const services = "test/support/services/global-setup.ts";

/** Projects run one group after the other, so that a browser never competes with a fleet of brokers for two cores. */
export default defineConfig({
  test: {
    reporters: ["default", ["json", { outputFile: "test-report.json" }]],
    retry: 0,
    // It warns of its own development settings, which are what a test wants.
    onConsoleLog: (text) => !text.startsWith("oidc-provider "),
    teardownTimeout: 30_000,
    projects: [
      {
        test: {
          name: "unit",
          include: ["test/unit/**/*.test.ts"],
          testTimeout: 10_000,
          // The embedded database is compiled when the first test of a file opens it.
          hookTimeout: 60_000,
          sequence: { groupOrder: 1 },
        },
      },
      {
        test: {
          name: "contract",
          include: ["test/contract/**/*.test.ts"],
          globalSetup: services,
          testTimeout: 30_000,
          hookTimeout: 60_000,
          sequence: { groupOrder: 2 },
        },
      },
      {
        test: {
          name: "integration",
          include: ["test/integration/**/*.test.ts"],
          globalSetup: services,
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: 3, // they wait more than they work: for permits, tokens and processes
          sequence: { groupOrder: 3 },
        },
      },
      {
        test: {
          name: "browser",
          include: ["test/browser/**/*.test.ts"],
          globalSetup: [services, "test/support/browser-setup.ts"],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          maxWorkers: 1,
          sequence: { groupOrder: 4 },
        },
      },
    ],
  },
});
