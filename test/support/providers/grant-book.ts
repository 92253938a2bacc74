import { randomBytes } from "node:crypto";
import { Fault } from "./fault.ts";
import type { Ledger } from "./ledger.ts";

/** How a system treats what it issues. Tests may change any of them while the server runs. */
export type GrantRules = {
  accessLifeSeconds: number;
  codeLifeSeconds: number;
  /** Null: refresh tokens do not run out. */
  refreshLifeSeconds: number | null;
  rotation: "rotating" | "fixed";
  /**
   * What a spent refresh token does when it comes again: `invalid_grant` is refused and changes nothing else;
   * `kills_family` also ends everything that descends from the same authorization; `grace` gives, for
   * `graceSeconds`, the successor once more.
   */
  reuse: "invalid_grant" | "kills_family" | "grace";
  graceSeconds: number;
  oldAccessTokenDies: boolean;
};

export type CodeRequest = {
  clientId: string;
  redirectUri?: string;
  scope: string;
  challenge?: string;
  method?: string;
};

export type TokenSet = { family: string; accessToken: string; refreshToken?: string; expiresIn: number; scope: string };

type Family = {
  id: string;
  clientId: string;
  scope: string;
  /** A set obtained for the same slot (a device, say) replaces this one. */
  slot?: string;
  /** Set if its access tokens live for another time than the rules say. */
  lifeSeconds?: number;
  dead: boolean;
  accessTokens: string[];
  refreshToken?: string;
};

type Code = CodeRequest & { family: string; expiresAt: number; used: boolean };
type Refresh = { family: Family; expiresAt: number; spentAt?: number };
type Access = { family: Family; expiresAt: number; dead: boolean };

/** Codes and tokens of one strict server, and what becomes of them. Time is the server's own clock, in milliseconds. */
export class GrantBook {
  readonly #codes = new Map<string, Code>();
  readonly #refresh = new Map<string, Refresh>();
  readonly #access = new Map<string, Access>();
  readonly #families = new Map<string, Family>();
  readonly #rules: GrantRules;
  readonly #ledger: Ledger;
  readonly #now: () => number;

  constructor(parts: { rules: GrantRules; ledger: Ledger; now: () => number }) {
    this.#rules = parts.rules;
    this.#ledger = parts.ledger;
    this.#now = parts.now;
  }

  issueCode(request: CodeRequest): string {
    const code = mint("code");
    const family = mint("family");
    const expiresAt = this.#now() + this.#rules.codeLifeSeconds * 1000;
    this.#codes.set(code, { ...request, family, expiresAt, used: false });
    this.#ledger.noteIssued({ kind: "code", value: code, family });
    return code;
  }

  /** A code works once, in time; a second use ends what the first one gave (RFC 6749, section 4.1.2). */
  redeemCode(value: string): CodeRequest & { family: string } {
    this.#ledger.noteSeen(value);
    const code = this.#codes.get(value);
    if (!code) throw new Fault("invalid_grant", "the code is unknown");
    if (code.used) {
      this.#ledger.noteReuse("code", value, code.family);
      this.killFamily(code.family);
      throw new Fault("invalid_grant", "the code has been used");
    }
    if (this.#now() > code.expiresAt) throw new Fault("invalid_grant", "the code has expired");
    code.used = true;
    return code;
  }

  /** Starts a family with its first token set. */
  startFamily(options: {
    clientId: string;
    scope: string;
    grantType: string;
    family?: string;
    slot?: string;
    withRefresh?: boolean;
    lifeSeconds?: number;
  }): TokenSet {
    const { slot } = options;
    if (slot !== undefined) this.#replaceSlot(slot);
    const family: Family = { id: options.family ?? mint("family"), ...options, dead: false, accessTokens: [] };
    this.#families.set(family.id, family);
    if (options.withRefresh !== false) this.#issueRefresh(family);
    this.#ledger.noteGranted(options.grantType, family.id);
    return this.#tokenSet(family);
  }

  /** One refresh, by the rules in force. @throws Fault with what was wrong with the token. */
  refresh(value: string, clientId: string): TokenSet {
    this.#ledger.noteSeen(value);
    const token = this.#refresh.get(value);
    if (!token || token.family.clientId !== clientId) throw new Fault("invalid_grant", "the refresh token is unknown");
    const { family } = token;
    if (token.spentAt !== undefined) this.#meetReuse(value, { ...token, spentAt: token.spentAt });
    else if (family.dead) throw new Fault("invalid_grant", "the refresh token has been revoked");
    else if (this.#now() > token.expiresAt) throw new Fault("invalid_grant", "the refresh token has expired");
    else if (this.#rules.rotation === "rotating") {
      token.spentAt = this.#now();
      this.#issueRefresh(family);
    }
    if (this.#rules.oldAccessTokenDies) this.#killAccess(family);
    this.#ledger.noteGranted("refresh_token", family.id);
    return this.#tokenSet(family);
  }

  /** @throws Fault telling an expired or dead token from one that was never issued. */
  checkAccess(value: string): { expiresAt: number } {
    this.#ledger.noteSeen(value);
    const token = this.#access.get(value);
    if (!token) throw new Fault("access_token_invalid", "the access token is unknown");
    if (token.dead || this.#now() > token.expiresAt) {
      throw new Fault("access_token_expired", new Date(token.expiresAt).toISOString());
    }
    return { expiresAt: token.expiresAt };
  }

  /** Ends every refresh token; access tokens live on. */
  killRefreshTokens(): void {
    for (const family of this.#families.values()) this.#killRefresh(family);
  }

  killAccessTokens(): void {
    for (const family of this.#families.values()) this.#killAccess(family);
  }

  killFamily(id: string): void {
    const family = this.#families.get(id);
    if (!family) return;
    this.#killRefresh(family);
    this.#killAccess(family);
  }

  #meetReuse(value: string, token: Refresh & { spentAt: number }): void {
    const { family } = token;
    const inGrace = this.#rules.reuse === "grace" && this.#now() <= token.spentAt + this.#rules.graceSeconds * 1000;
    if (inGrace && !family.dead) return;
    this.#ledger.noteReuse("refresh", value, family.id);
    if (this.#rules.reuse !== "invalid_grant") this.killFamily(family.id);
    throw new Fault("invalid_grant", "the refresh token has been used");
  }

  #replaceSlot(slot: string): void {
    for (const family of this.#families.values()) if (family.slot === slot) this.killFamily(family.id);
  }

  #issueRefresh(family: Family): void {
    const life = this.#rules.refreshLifeSeconds;
    const value = mint("refresh");
    family.refreshToken = value;
    this.#refresh.set(value, { family, expiresAt: life === null ? Infinity : this.#now() + life * 1000 });
    this.#ledger.noteIssued({ kind: "refresh", value, family: family.id });
  }

  #tokenSet(family: Family): TokenSet {
    const expiresIn = family.lifeSeconds ?? this.#rules.accessLifeSeconds;
    const accessToken = mint("access");
    family.accessTokens.push(accessToken);
    this.#access.set(accessToken, { family, expiresAt: this.#now() + expiresIn * 1000, dead: false });
    this.#ledger.noteIssued({ kind: "access", value: accessToken, family: family.id });
    const { id, scope, refreshToken } = family;
    return { family: id, accessToken, expiresIn, scope, ...(refreshToken === undefined ? {} : { refreshToken }) };
  }

  #killRefresh(family: Family): void {
    family.dead = true;
    this.#ledger.noteDead(family.id);
  }

  #killAccess(family: Family): void {
    for (const value of family.accessTokens) {
      const token = this.#access.get(value);
      if (token) token.dead = true;
    }
    family.accessTokens = [];
  }
}

/** Values carry what they are, so that a leak is recognised in a dump. */
function mint(kind: string): string {
  return `${kind}-${randomBytes(24).toString("base64url")}`;
}
