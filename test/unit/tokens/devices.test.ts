import { randomBytes } from "node:crypto";
import { setImmediate } from "node:timers/promises";
import { describe, expect, it } from "vitest";
import { DuplicateGrantError } from "../../../src/errors.ts";
import type { TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import type { DeviceRow } from "../../../src/store/devices.ts";
import { createDevices, type DeviceParts } from "../../../src/tokens/devices.ts";
import { secretsDestination } from "../../../src/tokens/seal.ts";
import { createKeyring } from "../../../src/vault/keyring.ts";
import { createTokenVault } from "../../../src/vault/vault.ts";
import { noAlarms } from "../../support/unasked.ts";
import { define } from "../providers/definitions.ts";
import { vault } from "./answers.ts";
import { manualClock } from "./manual-clock.ts";
import { tokenRow } from "./token-row.ts";

const row = tokenRow({ grant: "device_code", status: "pending" });
const definition = define("grants: [device_code]\ndevice: { url: https://login.example/device }");
const context = { row, owner: row, definition, client: null, clientSecrets: [], plan: null };

const shown = {
  linkId: null,
  scopes: row.scopes,
  userCode: "ABCD",
  verificationUri: "https://login.example/activate",
  verificationUriComplete: null,
  intervalSeconds: 5,
};

function deviceRow(id: string): DeviceRow {
  return {
    id,
    connectionId: row.id,
    deviceCode: vault.sealDeviceCode(JSON.stringify({ ...shown, deviceCode: `code ${id}` }), {
      requestId: id,
      destination: secretsDestination(row),
    }),
    ...shown,
    expiresAt: new Date(row.now.getTime() + 600_000),
    expired: false,
  };
}

const grant: TokenAnswer = {
  kind: "granted",
  grant: {
    accessToken: "a1",
    refreshToken: "r1",
    tokenType: "Bearer",
    accessExpiry: { kind: "in", seconds: 3600 },
    refreshExpiry: { kind: "unstated" },
    captured: {},
  },
};
const heldBack: TokenAnswer = {
  kind: "failed",
  failure: { class: "not_sent", code: "limit_reached", detail: "used up", retryAfterSeconds: 20 },
};

const refused = (oauthError: string): TokenAnswer => ({
  kind: "failed",
  failure: { class: "refused_for_good", code: "refused", detail: "The provider says no.", oauthError } as never,
});

/** Polling over codes that are due at once, each claimed once, with a provider and a store that answer when a test says so. */
class Stage {
  readonly clock = manualClock();
  readonly order: string[] = [];
  /** The details of the events in the history. */
  readonly told: unknown[] = [];
  /** Until the disk has the begin of an entry. */
  begun = Promise.resolve();
  /** What came of codes, by connection. */
  readonly audited: string[] = [];
  due: DeviceRow[] = [deviceRow("one")];
  isDraining = false;
  answer = Promise.withResolvers<TokenAnswer>();
  stored = Promise.withResolvers<void>();
  readonly devices;

  constructor(completion: DeviceParts["completion"] = "any") {
    const codes: Partial<DeviceParts["deviceCodes"]> = {
      claimDue: async ({ limit }) => this.due.splice(0, limit),
      nextDueSeconds: async () => null,
      postpone: async (_device, seconds) => void this.order.push(`postponed ${seconds}`),
      drop: async () => void this.order.push("dropped"),
    };
    this.devices = createDevices({
      deviceCodes: codes as DeviceParts["deviceCodes"],
      links: { reserve: async () => true },
      accounts: {
        addEvent: async (_id, _type, detail) => {
          this.order.push("given up");
          this.told.push(detail);
        },
      },
      rows: { readById: async () => row },
      authorizations: {
        ask: async () => {
          this.order.push("asked");
          return await this.answer.promise;
        },
        storeGrant: async () => {
          await this.stored.promise;
          this.order.push("kept");
          return { kind: "connected", row };
        },
      },
      sender: { ask: async () => null, prepareWithFurtherTokens: async () => context },
      limits: { beside: () => async (_request, send) => await send() },
      vault,
      clock: this.clock,
      lifecycle: this,
      alarms: noAlarms,
      completion,
      audited: async ({ connection }) => {
        await this.begun;
        if (connection !== null) this.audited.push(`${connection} begun`);
        return async (result) => void this.audited.push(`${connection ?? "-"} ${result}`);
      },
      onBackgroundError: (error) => void this.order.push(String(error)),
    });
  }

  /** Whether all polls are over by now. */
  async isSettled(): Promise<boolean> {
    let settled = false;
    void this.devices.idle().then(() => (settled = true));
    for (let turn = 0; turn < 5; turn++) await setImmediate();
    return settled;
  }
}

describe("with CONSENT_COMPLETION=app", () => {
  it("no user code is asked for, and one from before is given up unasked", async () => {
    const stage = new Stage("app");
    const forbidden = {
      code: "grant_not_applicable",
      message: expect.stringContaining("CONSENT_COMPLETION=app") as string,
    };
    await expect(stage.devices.begin(row.id, null)).rejects.toMatchObject(forbidden);
    await stage.devices.round();
    await stage.devices.idle();
    expect(stage.order).toEqual(["dropped", "given up"]);
    expect([stage.told, stage.audited]).toEqual([[{ error: "grant_not_applicable" }], ["- grant_not_applicable"]]);
  });
});

describe("polling for user codes", () => {
  it("a round does not wait for a provider that does not answer", async () => {
    const stage = new Stage();
    await stage.devices.round();
    expect([stage.order, await stage.isSettled()]).toEqual([["asked"], false]);
  });

  it("a process that is told to stop waits for the answer that is under way, and until it is kept", async () => {
    const stage = new Stage();
    await stage.devices.round();
    stage.isDraining = true;
    stage.answer.resolve(grant);
    expect(await stage.isSettled()).toBe(false);
    stage.stored.resolve();
    await stage.devices.idle();
    expect(stage.order).toEqual(["asked", "kept", "dropped"]);
  });

  it("a code that does not open is given up, and the others are polled; one that another replica can open is left to it", async () => {
    const stage = new Stage();
    const damaged = { ...deviceRow("1"), deviceCode: new Uint8Array(60) };
    const theirs = createTokenVault(createKeyring([{ id: "theirs", key: randomBytes(32) }]));
    const foreign = {
      ...deviceRow("2"),
      deviceCode: theirs.sealDeviceCode("code 2", { requestId: "2", destination: secretsDestination(row) }),
    };
    stage.due = [damaged, foreign, deviceRow("3")];
    await stage.devices.round();
    expect(await stage.isSettled()).toBe(false);
    const expected = ["asked", "dropped", "given up", expect.stringContaining("UnreadableSecretError")];
    expect(stage.order).toHaveLength(4);
    expect(stage.order).toEqual(expect.arrayContaining(expected));
  });

  it("a code that brings a refresh token which another connection holds is given up, and the history says why", async () => {
    const stage = new Stage();
    stage.answer.resolve(grant);
    stage.stored.reject(new DuplicateGrantError(row.name, []));
    await stage.devices.round();
    await stage.devices.idle();
    expect([stage.order, stage.told]).toEqual([["asked", "dropped", "given up"], [{ error: "duplicate_grant" }]]);
  });

  it("the audit has what came of each code, begun before the grant is kept; a poll that goes on leaves nothing", async () => {
    const kept = new Stage();
    const disk = Promise.withResolvers<void>();
    kept.begun = disk.promise;
    kept.answer.resolve(grant);
    kept.stored.resolve();
    await kept.devices.round();
    expect([await kept.isSettled(), kept.order]).toEqual([false, ["asked"]]);
    disk.resolve();
    await kept.devices.idle();
    expect(kept.audited).toEqual(["acme begun", "acme ok"]);
    const resultOf = async (stage: Stage, answer: TokenAnswer) => {
      stage.answer.resolve(answer);
      await stage.devices.round();
      await stage.devices.idle();
      return stage.audited.at(-1);
    };
    expect(await resultOf(new Stage(), refused("access_denied"))).toBe("- denied");
    expect(await resultOf(new Stage(), refused("expired_token"))).toBe("- expired_token");
    expect(await resultOf(new Stage(), refused("invalid_grant"))).toBe("- provider_rejected");
    expect(await resultOf(new Stage(), refused("authorization_pending"))).toBeUndefined();
    const lost = new Stage();
    lost.stored.reject(new Error("the database is away"));
    expect(await resultOf(lost, grant)).toBe("acme internal_error");
  });

  it("a process that is told to stop claims no further code", async () => {
    const stage = new Stage();
    stage.isDraining = true;
    await stage.devices.round();
    expect([stage.order, stage.due.length]).toEqual([[], 1]);
  });

  it("no more than eight are under way at once, however slow their provider is", async () => {
    const stage = new Stage();
    stage.due = Array.from({ length: 12 }, (_, index) => deviceRow(String(index)));
    await stage.devices.round();
    await stage.clock.pass(60_000);
    await stage.devices.round();
    expect([stage.order.length, stage.due.length]).toEqual([8, 4]);
  });

  it("what the provider's limits hold back is asked again when they allow it", async () => {
    const stage = new Stage();
    stage.answer.resolve(heldBack);
    await stage.devices.round();
    await stage.devices.idle();
    expect(stage.order).toEqual(["asked", "postponed 20"]);
  });
});
