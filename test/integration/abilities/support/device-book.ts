import { randomUUID } from "node:crypto";

/** What a person has done with a user code so far. `slow_down` is said once, then the code is pending again. */
export type DeviceState = "pending" | "slow_down" | "approved" | "denied";

type Device = { userCode: string; state: DeviceState; expiresAtMs: number; account?: string };

const lifeSeconds = 600;

/** The user codes of a strict server (RFC 8628). */
export class DeviceBook {
  readonly #devices = new Map<string, Device>();

  /** The answer of the device authorization endpoint. */
  begin(verificationUri: string): Record<string, unknown> {
    const deviceCode = `device-${randomUUID()}`;
    const userCode = randomUUID().slice(0, 8).toUpperCase();
    const expiresAtMs = Date.now() + lifeSeconds * 1000;
    this.#devices.set(deviceCode, { userCode, state: "pending", expiresAtMs });
    const codes = { device_code: deviceCode, user_code: userCode, verification_uri: verificationUri };
    return { ...codes, interval: 1, expires_in: lifeSeconds };
  }

  /** What a poll is told: whose grant it is (undefined: whoever signs in), or why there is none (section 3.5). */
  poll(deviceCode: string): { account: string | undefined } | { error: string } {
    const device = this.#devices.get(deviceCode);
    if (!device) return { error: "invalid_grant" };
    if (Date.now() > device.expiresAtMs) return { error: "expired_token" };
    if (device.state === "approved") return { account: device.account };
    if (device.state === "denied") return { error: "access_denied" };
    if (device.state === "pending") return { error: "authorization_pending" };
    device.state = "pending";
    return { error: "slow_down" };
  }

  /** The person at the provider's page. */
  answer(userCode: string, state: DeviceState, account?: string): void {
    Object.assign(this.#find(userCode)[1], { state, account });
  }

  expire(userCode: string): void {
    this.#find(userCode)[1].expiresAtMs = 0;
  }

  codeOf(userCode: string): string {
    return this.#find(userCode)[0];
  }

  userCodes(): string[] {
    return [...this.#devices.values()].map(({ userCode }) => userCode);
  }

  #find(userCode: string): [string, Device] {
    const found = [...this.#devices].find(([, device]) => device.userCode === userCode);
    if (!found) throw new Error(`there is no user code ${userCode}`);
    return found;
  }
}
