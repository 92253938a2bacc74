import { afterAll, afterEach, beforeAll, beforeEach, describe, test, vi } from "vitest";
import { onlyWith } from "./support/catalog.ts";
import { Player } from "./support/player.ts";
import { openStrictServer, type StrictServer } from "./support/strict-server.ts";
import { readTranscripts } from "./support/transcript.ts";

let server: StrictServer;
beforeAll(async () => void (server = await openStrictServer()));
afterAll(async () => await server.close());

// The date stands still, so that a moment that a transcript counts from now is equally far away when it is written and when it is read.
beforeEach(() => void vi.useFakeTimers({ toFake: ["Date"] }));
afterEach(() => void vi.useRealTimers());

describe.each(readTranscripts())("$file", (transcript) => {
  test(`${transcript.provider}: every request is the documented one, every answer is read as documented`, async () => {
    const player = new Player({ definition: onlyWith(transcript.provider), transcript, server });
    for (const [index, step] of transcript.steps.entries()) {
      await player.play(step).catch((error: unknown) => {
        const kind = Object.keys(step).find((key) => key !== "reads");
        throw new Error(`step ${index + 1}, ${kind}: ${error instanceof Error ? error.message : String(error)}`);
      });
    }
  });
});
