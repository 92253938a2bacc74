import type { Discovery } from "../../src/providers/oauth/discovery.ts";
import type { AccountRows } from "../../src/store/accounts.ts";
import type { DeviceAuthorizations } from "../../src/store/devices.ts";
import type { Alarms } from "../../src/tokens/core.ts";
import type { KeyList } from "../../src/vault/keyring.ts";

const unasked = (name: string) => () => Promise.reject(new Error(`${name} was not expected to be asked for anything`));

/** For definitions without lookups and further tokens: only what is asked of every connection answers. */
export const noAccounts: AccountRows = {
  ensureFurtherTokens: async () => {},
  readFurtherTokens: async () => [],
  learnAccount: unasked("learnAccount"),
  noteLookupFailed: unasked("learnAccount"),
  learnExpiry: unasked("learnExpiry"),
  sharingAccount: async () => [],
  noteDroppedSets: async () => undefined,
  addEvent: async () => {},
  isStillNeeded: async () => false,
  mayShareAccount: async () => false,
  addUnconfirmed: unasked("addUnconfirmed"),
  describeUnconfirmed: unasked("describeUnconfirmed"),
  overtakeUnconfirmed: unasked("overtakeUnconfirmed"),
  findUnconfirmed: async () => null,
  acceptUnconfirmed: async () => null,
  declineUnconfirmed: async () => false,
  dropUnconfirmed: async () => {},
  acceptedUnconfirmed: async () => [],
  takeUnconfirmed: async () => [],
  takeForgottenUnconfirmed: async () => [],
};

/** For definitions that name all of their addresses. */
export const noDiscovery: Discovery = { complete: async (definition) => definition, doubt() {} };

/** Whatever does not open counts as not being there. */
export const noOtherKeys: KeyList = { absenceOf: async () => "absent", isSilent: async () => false };

export const noAlarms: Alarms = { unreadable() {}, rejected() {} };

/** Nobody types in a user code. */
export const noDeviceCodes: DeviceAuthorizations = {
  put: unasked("put"),
  find: async () => null,
  claimDue: async () => [],
  nextDueSeconds: async () => null,
  postpone: async () => {},
  drop: async () => {},
};
