/** One request that reached a strict server, from its arrival to the last byte of the answer. */
export type RequestEntry = {
  endpoint: string;
  method: string;
  path: string;
  headers: Readonly<Record<string, string | undefined>>;
  /** Every field of query and body, for tests that ask what was sent. */
  fields: Readonly<Record<string, string>>;
  /** Milliseconds since the epoch. */
  inAt: number;
  /** When the answer was out, or the connection gone; absent while it runs. */
  outAt?: number;
  /** Absent where no answer was given. */
  status?: number;
};

type TokenKind = "code" | "access" | "refresh";

/** One code or token that a strict server issued. */
export type TokenEntry = {
  kind: TokenKind;
  value: string;
  /** Tokens that descend from one authorization share a family. */
  family: string;
  issuedAt: number;
  /** How often it was presented, by anyone, with whatever result. */
  seen: number;
};

/** A spent code or refresh token that was presented again. */
export type ReuseEntry = { kind: "code" | "refresh"; value: string; family: string; at: number };

/** What one strict server has received and issued. Tests compare what the broker has with it. */
export class Ledger {
  readonly requests: RequestEntry[] = [];
  readonly tokens: TokenEntry[] = [];
  readonly reuses: ReuseEntry[] = [];
  readonly #issued = new Map<string, TokenEntry>();
  readonly #granted: { grantType: string; family: string }[] = [];
  readonly #current = new Map<string, string>();
  readonly #inFlight = new Map<string, number>();
  readonly #peaks = new Map<string, number>();

  /** How often tokens were granted, by the `grant_type` as sent; of one family where named. */
  granted(grantType: string, family?: string): number {
    return this.#granted.filter((row) => row.grantType === grantType && (!family || row.family === family)).length;
  }

  /** How often a refresh succeeded; of one family where named. */
  refreshes(family?: string): number {
    return this.granted("refresh_token", family);
  }

  /** The refresh token that a family's holder must have at rest; absent once the family is dead. */
  currentRefreshToken(family: string): string | undefined {
    return this.#current.get(family);
  }

  /** Every refresh token that is in force. */
  currentRefreshTokens(): string[] {
    return [...this.#current.values()];
  }

  /** The family of a code or token that was issued here. */
  familyOf(value: string): string | undefined {
    return this.#issued.get(value)?.family;
  }

  /** The most requests with one refresh token that ever ran at the same time; of the worst token if none is named. */
  peakConcurrency(refreshToken?: string): number {
    if (refreshToken !== undefined) return this.#peaks.get(refreshToken) ?? 0;
    return Math.max(0, ...this.#peaks.values());
  }

  /** The requests that reached one endpoint. */
  requestsTo(endpoint: string): RequestEntry[] {
    return this.requests.filter((entry) => entry.endpoint === endpoint);
  }

  /** Notes an arrival. Call what it returns once, when the answer is out or the connection gone. */
  open(entry: RequestEntry): (status?: number) => void {
    this.requests.push(entry);
    const refreshToken = entry.fields["refresh_token"];
    if (refreshToken !== undefined) this.#enter(refreshToken);
    return (status) => {
      if (entry.outAt !== undefined) return;
      entry.outAt = Date.now();
      if (status !== undefined) entry.status = status;
      if (refreshToken !== undefined) this.#inFlight.set(refreshToken, (this.#inFlight.get(refreshToken) ?? 1) - 1);
    };
  }

  noteIssued(entry: Omit<TokenEntry, "issuedAt" | "seen">): void {
    const known = this.#issued.get(entry.value);
    if (!known) {
      const row = { ...entry, issuedAt: Date.now(), seen: 0 };
      this.#issued.set(entry.value, row);
      this.tokens.push(row);
    }
    if (entry.kind === "refresh") this.#current.set(entry.family, entry.value);
  }

  noteSeen(value: string): void {
    const row = this.#issued.get(value);
    if (row) row.seen++;
  }

  noteGranted(grantType: string, family: string): void {
    this.#granted.push({ grantType, family });
  }

  noteReuse(kind: ReuseEntry["kind"], value: string, family: string): void {
    this.reuses.push({ kind, value, family, at: Date.now() });
  }

  /** The family has no refresh token in force any more. */
  noteDead(family: string): void {
    this.#current.delete(family);
  }

  /** Forgets what has happened so far. What was issued stays known. */
  startOver(): void {
    for (const list of [this.requests, this.tokens, this.reuses, this.#granted]) list.length = 0;
    this.#peaks.clear();
  }

  #enter(refreshToken: string): void {
    const running = (this.#inFlight.get(refreshToken) ?? 0) + 1;
    this.#inFlight.set(refreshToken, running);
    this.#peaks.set(refreshToken, Math.max(running, this.#peaks.get(refreshToken) ?? 0));
  }
}
