/** How a provider takes a second use of a refresh token. */
export type ReuseKind = "kills_family" | "grace" | "until_successor_used" | "dead" | "safe";

export const graceSeconds = 600;

/** One consent of one person, with all tokens that came of it. */
export type Family = {
  id: number;
  kind: ReuseKind;
  accessLifeSeconds: number;
  isLive: boolean;
  /** When the database knew of it: its code was sent, or its tokens were stored. */
  askedMs: number;
  /** Uses of refresh tokens that ended the family. */
  detections: { token: RefreshToken; atMs: number }[];
  tokens: RefreshToken[];
};

export type RefreshToken = {
  value: string;
  family: Family;
  /** The one that it was issued for; null: it came of a person's consent. */
  parent: RefreshToken | null;
  issuedMs: number;
  rotatedMs: number | null;
  isDead: boolean;
};

/** What a strict provider does with a refresh token. */
export class GrantModel {
  readonly families: Family[] = [];
  readonly tokens = new Map<string, RefreshToken>();
  #serial = 0;

  open(kind: ReuseKind, accessLifeSeconds: number, nowMs: number): RefreshToken {
    const family: Family = {
      id: this.families.length + 1,
      kind,
      accessLifeSeconds,
      isLive: true,
      askedMs: Infinity,
      detections: [],
      tokens: [],
    };
    this.families.push(family);
    return this.#issue(family, null, nowMs);
  }

  #issue(family: Family, parent: RefreshToken | null, nowMs: number): RefreshToken {
    const value = `r${family.id}.${family.tokens.length + 1}`;
    const token: RefreshToken = { value, family, parent, issuedMs: nowMs, rotatedMs: null, isDead: false };
    family.tokens.push(token);
    this.tokens.set(value, token);
    return token;
  }

  accessToken(family: Family | null): string {
    this.#serial += 1;
    return `a${family?.id ?? 0}.${this.#serial}`;
  }

  /** The refresh token that stands now; null: `invalid_grant`. */
  use(value: string, nowMs: number): RefreshToken | null {
    const token = this.tokens.get(value);
    if (token === undefined || token.isDead || !token.family.isLive) return null;
    if (token.family.kind === "safe") return token;
    if (token.rotatedMs !== null && !this.#mayUseAgain(token, nowMs)) return null;
    token.rotatedMs ??= nowMs;
    if (token.family.kind === "until_successor_used" && token.parent !== null) token.parent.isDead = true;
    return this.#issue(token.family, token, nowMs);
  }

  #mayUseAgain(token: RefreshToken, nowMs: number): boolean {
    const { family, rotatedMs } = token;
    if (family.kind === "until_successor_used") return true;
    if (family.kind === "grace" && nowMs - (rotatedMs ?? nowMs) <= graceSeconds * 1000) return true;
    if (family.kind !== "dead") {
      family.isLive = false;
      family.detections.push({ token, atMs: nowMs });
    }
    return false;
  }

  revoke(value: string): void {
    const token = this.tokens.get(value);
    if (token !== undefined) token.isDead = true;
  }
}

/** Whether the provider would take it as the newest of its family: not spent yet. */
export function isCurrent({ family, isDead, rotatedMs }: RefreshToken): boolean {
  return family.isLive && !isDead && (rotatedMs === null || family.kind === "safe");
}
