import type { SealedGrant } from "../../../src/store/row-sql.ts";
import type { Scheduler } from "../../support/simulation/scheduler.ts";

const hourMs = 3_600_000;

/** Bytes that stand for sealed records, and sets of them. */
export class RandomSeals {
  readonly #dice: Pick<Scheduler, "pick" | "chance">;
  #count = 0;

  constructor(dice: Pick<Scheduler, "pick" | "chance">) {
    this.#dice = dice;
  }

  bytes(): Uint8Array<ArrayBuffer> {
    return new Uint8Array(Buffer.from(`sealed ${++this.#count}`));
  }

  /** Few, so that some are held twice. */
  fingerprint(): Uint8Array<ArrayBuffer> {
    return new Uint8Array([this.#dice.pick([1, 2, 3, 4, 5])]);
  }

  grant(nowMs: number): SealedGrant {
    const dice = this.#dice;
    const at = (...offsets: (number | null)[]) => {
      const offset = dice.pick(offsets);
      return offset === null ? null : new Date(nowMs + offset);
    };
    return {
      accessToken: dice.chance(0.85) ? this.bytes() : null,
      refreshToken: dice.chance(0.9) ? this.bytes() : null,
      refreshFingerprint: dice.chance(0.9) ? this.fingerprint() : null,
      tokenType: "Bearer",
      grantedScopes: dice.pick([null, [], ["read", "write"]]),
      captured: dice.pick<Record<string, string>>([{}, { account: "a1" }]),
      redirectUri: this.#count % 2 === 0 ? null : "https://broker.example/callback/own",
      accountCaptured: this.#count % 3 === 0 ? { tenant: "t1" } : {},
      issuedAt: new Date(nowMs - dice.pick([0, 40])),
      expiresAt: at(null, -40, 0, 60_000, hourMs),
      refreshTokenExpiresAt: at(null, 24 * hourMs),
      keepsRefreshToken: dice.chance(0.3),
      noRefreshTokenSince: at(null, null, -40),
      unreadableLifetime: this.#count % 5 === 0,
      lastError: this.#count % 7 === 0 ? { code: "unusable_token", detail: "odd" } : null,
      refreshDueAt: at(null, 45_000, 0.75 * hourMs),
      keepAliveAt: at(null, null, 50_000, 12 * hourMs),
    };
  }
}
