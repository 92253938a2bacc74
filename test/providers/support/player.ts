import { expect } from "vitest";
import {
  type ConnectionGrant,
  defaultGrant,
  forFurtherToken,
  type ProviderDefinition,
  type ProviderRequest,
} from "../../../src/providers/format/definition.ts";
import { effectiveScopes, joinScopes, lookupsOf } from "../../../src/providers/format/requirements.ts";
import { capturedValues, fill, type TemplateValues } from "../../../src/providers/format/template.ts";
import type { HttpRequest } from "../../../src/providers/http/exchange.ts";
import {
  buildAuthorizationUrl,
  buildPushedRequest,
  createNonce,
  createPkce,
  type Pkce,
  readCallback,
  readPushedAnswer,
} from "../../../src/providers/oauth/authorization-request.ts";
import type { Expiry, Grant, TokenAnswer } from "../../../src/providers/oauth/token-answer.ts";
import { createOAuthClient, type OAuthClient } from "../../../src/providers/oauth/oauth-client.ts";
import {
  buildIntrospectionRequest,
  buildLookupRequest,
  buildRevocationRequest,
  describeApiRequest,
  readDeviceAuthorization,
  readIntrospection,
  readLookup,
  readPollState,
} from "../../../src/providers/oauth/side-requests.ts";
import type { TokenGrant } from "../../../src/grant-types.ts";
import {
  buildRequest,
  buildTokenRequest,
  exchangeFor,
  withAssertion,
} from "../../../src/providers/oauth/token-request.ts";
import type { StrictServer } from "./strict-server.ts";
import {
  fillPlaceholders,
  type Placeholders,
  type Reads,
  type Step,
  type Talk,
  talkKinds,
  type Transcript,
} from "./transcript.ts";

const state = "the-state";

/** Plays a transcript: every request is the product's, every answer the transcript's. */
export class Player {
  readonly #definition: ProviderDefinition;
  readonly #server: StrictServer;
  readonly #oauth: OAuthClient;
  readonly #scopes: string[];
  /** Those that the transcript names; null: the definition's defaults, which differ by grant. */
  readonly #wished: string[] | null;
  readonly #pkce: Pkce | null;
  readonly #nonce: string | null;
  #values: TemplateValues;
  #grant: ConnectionGrant;
  /** Of the callback, of answers and of lookups, as they are stored. */
  #captured: Record<string, string> = {};
  #found: Record<string, string> = {};
  #furtherTokens: Record<string, Grant> = {};
  #deviceCode = "";
  #pushedUrl: string | null = null;
  #lookups = 0;

  constructor(given: { definition: ProviderDefinition; transcript: Transcript; server: StrictServer }) {
    const { definition, transcript, server } = given;
    this.#definition = definition;
    this.#server = server;
    this.#oauth = createOAuthClient({ egress: server.egress });
    this.#wished = transcript.scopes ?? null;
    this.#scopes = effectiveScopes(definition, defaultGrant(definition), this.#wished);
    this.#pkce =
      definition.authorization && createPkce({ definition, randomBytes: (size) => new Uint8Array(size).fill(7) });
    this.#nonce =
      definition.authorization &&
      createNonce({ definition, scopes: this.#scopes, randomBytes: (size) => new Uint8Array(size).fill(9) });
    this.#grant = definition.grants[0] ?? "authorization_code";
    this.#values = {
      client: { id: transcript.client.id, secret: transcript.client.secret },
      inputs: inputsOf(definition, transcript),
      secretInputs: transcript.secret_inputs ?? {},
      credentials: transcript.credentials ?? {},
      scope: joinScopes(definition, this.#scopes),
      redirectUri: `https://broker.example/callback/${definition.id}`,
    };
    this.#learn({});
  }

  /** The values of templates that a connection would have by now. */
  #learn({ captured = {}, found = {} }: { captured?: Record<string, string>; found?: Record<string, string> }): void {
    Object.assign(this.#captured, captured);
    Object.assign(this.#found, found);
    const stored = { captured: this.#captured, account: this.#found, inputs: this.#values.inputs ?? {} };
    this.#values = { ...this.#values, ...capturedValues(this.#definition, stored) };
  }

  async play(step: Step): Promise<void> {
    if (step.authorize) return this.#authorize(step.authorize);
    if (step.import) return this.#import(step.import);
    if (step.api) return this.#api(step.api);
    const kind = talkKinds.find((name) => step[name] !== undefined);
    const talk = kind && step[kind];
    if (!kind || !talk) throw new Error(`no such step: ${Object.keys(step).join(", ")}`);
    const reads = step.reads ?? {};
    switch (kind) {
      case "exchange":
        return await this.#first("authorization_code", talk, reads);
      case "fetch":
        return await this.#first("client_credentials", talk, reads);
      case "login":
        return await this.#first("password", talk, reads);
      case "poll":
        return await this.#first("device_code", talk, reads);
      case "refresh":
        return await this.#refresh(talk, reads);
      case "extra":
        return await this.#extra(talk, reads);
      case "pushed":
        return await this.#pushed(talk);
      case "device":
        return await this.#device(talk, reads);
      case "lookup":
        return await this.#lookup(talk, reads);
      case "introspect":
        return await this.#introspect(talk, reads);
      case "revoke":
        return await this.#revoke(talk, reads);
    }
  }

  #authorize({ url, callback }: { url: string; callback: string }): void {
    const sent = this.#pushedUrl ?? this.#authorizationUrl();
    expect(sortedUrl(sent)).toBe(sortedUrl(this.#filled(url)));
    const query = Object.fromEntries(new URLSearchParams(this.#filled(callback)));
    const answer = readCallback(this.#definition, query, () => this.#values.client?.secret ?? null);
    if (answer.kind !== "code") throw new Error(`the callback was read as ${answer.error}`);
    this.#values = {
      ...this.#values,
      code: answer.code,
      ...(this.#pkce && { codeVerifier: this.#pkce.verifier }),
    };
    this.#learn({ captured: answer.captured });
  }

  #authorizationUrl(): string {
    const { codeVerifier: _, ...values } = this.#values;
    return buildAuthorizationUrl({
      definition: this.#definition,
      values,
      state,
      nonce: this.#nonce,
      codeChallenge: this.#pkce,
      scopes: this.#scopes,
    });
  }

  async #pushed(talk: Talk): Promise<void> {
    const { authorization } = this.#definition;
    if (!authorization?.pushed) throw new Error("the definition pushes no authorization requests");
    const given = {
      definition: this.#definition,
      state,
      nonce: this.#nonce,
      codeChallenge: this.#pkce,
      scopes: this.#scopes,
    };
    const values = await this.#authenticated(authorization.pushed, this.#values);
    const { body, ok } = await this.#ask(talk, buildPushedRequest({ ...given, values }), values);
    expect(ok).toBe(true);
    this.#pushedUrl = readPushedAnswer({ definition: this.#definition, values: this.#values, body });
  }

  async #first(grant: TokenGrant & ConnectionGrant, talk: Talk, reads: Reads): Promise<void> {
    const scope = joinScopes(this.#definition, effectiveScopes(this.#definition, grant, this.#wished));
    this.#values = { ...this.#values, scope };
    const values = grant === "device_code" ? { ...this.#values, deviceCode: this.#deviceCode } : this.#values;
    const answer = await this.#token(talk, { grant, obtainedBy: grant, values }, this.#definition);
    if (answer.kind === "granted") {
      this.#grant = grant;
      this.#keep(answer.grant);
    }
    this.#expect(answer, reads, grant === "device_code");
  }

  async #refresh(talk: Talk, reads: Reads): Promise<void> {
    const obtainedBy = (talk.obtained_by as ConnectionGrant | undefined) ?? this.#grant;
    const chain = talk.token ?? null;
    const own = chain === null ? null : this.#furtherTokens[chain];
    const refreshToken = chain === null ? this.#values.refreshToken : own?.refreshToken;
    const definition = chain === null ? this.#definition : forFurtherToken(this.#definition, chain);
    const values = { ...this.#values, refreshToken };
    const answer = await this.#token(talk, { grant: "refresh_token", obtainedBy, values }, definition);
    if (answer.kind === "granted" && chain === null) this.#keep(answer.grant);
    if (answer.kind === "granted" && chain !== null) this.#furtherTokens[chain] = { ...own, ...answer.grant };
    this.#expect(answer, reads);
  }

  async #extra(talk: Talk, reads: Reads): Promise<void> {
    const chain = talk.token ?? "";
    const definition = forFurtherToken(this.#definition, chain);
    const call = { grant: "token_exchange", obtainedBy: this.#grant, values: this.#values } as const;
    const answer = await this.#token(talk, call, definition);
    if (answer.kind === "granted") this.#furtherTokens[chain] = answer.grant;
    this.#expect(answer, reads);
  }

  async #device(talk: Talk, reads: Reads): Promise<void> {
    const { device } = this.#definition;
    if (device === null) throw new Error("the definition has no device authorization endpoint");
    const values = await this.#authenticated(device, this.#values);
    const { body } = await this.#ask(talk, buildRequest(device, values), values);
    const read = readDeviceAuthorization(body);
    this.#deviceCode = read?.deviceCode ?? "";
    if (reads.user_code !== undefined) expect(read?.userCode).toBe(reads.user_code);
    if (reads.verification_uri !== undefined) expect(read?.verificationUri).toBe(reads.verification_uri);
    if (reads.expires_in !== undefined) expect(read?.expiresInSeconds).toBe(reads.expires_in);
  }

  async #lookup(talk: Talk, reads: Reads): Promise<void> {
    const lookup = lookupsOf(this.#definition, this.#grant).filter(({ request }) => request !== null)[this.#lookups++];
    if (!lookup?.request) throw new Error("the definition has no such lookup");
    const values = lookup.request.clientAuth
      ? await this.#authenticated({ ...lookup.request, clientAuth: lookup.request.clientAuth }, this.#values)
      : this.#values;
    const { body } = await this.#ask(talk, buildLookupRequest(this.#definition, lookup.request, values), values);
    const found = readLookup(lookup, body, this.#values);
    this.#learn({ found: found?.captured ?? {} });
    if (reads.account !== undefined) expect(found?.account).toBe(reads.account);
    if (reads.label !== undefined) expect(found?.label).toBe(reads.label);
    if (reads.captured !== undefined) expect(found?.captured).toEqual(reads.captured);
  }

  async #introspect(talk: Talk, reads: Reads): Promise<void> {
    const { introspection } = this.#definition;
    if (introspection === null) throw new Error("the definition has no introspection");
    const values = await this.#authenticated(introspection, this.#values);
    const token = this.#named(introspection.token);
    const request = buildIntrospectionRequest({ definition: this.#definition, token, values });
    if (request === null) throw new Error("nothing is asked about this kind of token");
    const { body } = await this.#ask(talk, request, values);
    const { active, expiry } = readIntrospection(introspection, body);
    if (reads.active !== undefined) expect(active).toBe(reads.active);
    if (reads.expires_in !== undefined) expectLife(expiry, reads.expires_in);
  }

  async #revoke(talk: Talk, reads: Reads): Promise<void> {
    const { revocation } = this.#definition;
    if (revocation === null) throw new Error("the definition has no revocation");
    const values = await this.#authenticated(revocation, this.#values);
    const kind = revocation.token === "both" ? ((talk.token ?? "refresh_token") as "refresh_token") : revocation.token;
    const request = buildRevocationRequest({ definition: this.#definition, token: this.#named(kind), values });
    if (request === null) throw new Error("no token of this kind is revoked");
    const { ok } = await this.#ask(talk, request, values);
    expect(ok).toBe(reads.revoked ?? true);
  }

  #import({
    access_token: accessToken,
    refresh_token: refreshToken,
  }: {
    access_token?: string;
    refresh_token?: string;
  }): void {
    this.#grant = "import";
    this.#values = { ...this.#values, accessToken, refreshToken };
  }

  #api({ base_url: baseUrl, headers }: { base_url?: string; headers: Record<string, string> }): void {
    const request = describeApiRequest({ definition: this.#definition, values: this.#values });
    expect({ ...(baseUrl !== undefined && { base_url: request.base_url }), headers: request.headers }).toEqual({
      ...(baseUrl !== undefined && { base_url: baseUrl }),
      headers: Object.fromEntries(Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value])),
    });
  }

  /** The account's name, where a template gives it. */
  #account(): string | null {
    const lookup = lookupsOf(this.#definition, this.#grant).find(({ value }) => value !== null);
    return lookup?.value ? fill(lookup.value, this.#values) : null;
  }

  #named(hint: "access_token" | "refresh_token") {
    const value = hint === "access_token" ? this.#values.accessToken : this.#values.refreshToken;
    return { hint, value: value ?? "" };
  }

  async #token(
    talk: Talk,
    call: { grant: TokenGrant; obtainedBy: ConnectionGrant; values: TemplateValues },
    definition: ProviderDefinition,
  ): Promise<TokenAnswer> {
    const wanted = { definition, grant: call.grant, obtainedBy: call.obtainedBy };
    const values = await this.#authenticated(exchangeFor(wanted), call.values);
    const request = buildTokenRequest({ ...wanted, values });
    this.#expectNext(talk, values);
    const answer = await this.#oauth.requestToken({ definition, request, mayStillSend: () => true });
    expect(this.#server.fault()).toBeNull();
    return answer;
  }

  async #ask(talk: Talk, request: HttpRequest, values: TemplateValues) {
    this.#expectNext(talk, values);
    const answer = await this.#oauth.ask({ definition: this.#definition, request });
    expect(this.#server.fault()).toBeNull();
    return answer;
  }

  #expectNext({ request, answer }: Talk, values: TemplateValues): void {
    const more = { client_assertion: values.client?.assertion ?? "" };
    this.#server.expect(this.#filled(request, more), this.#filled(answer, more));
  }

  async #authenticated(request: ProviderRequest, values: TemplateValues): Promise<TemplateValues> {
    return await withAssertion(request, values, { definition: this.#definition, nowMs: Date.now() });
  }

  #filled(text: string, more: Placeholders = {}): string {
    const pkce = this.#pkce && { code_verifier: this.#pkce.verifier, code_challenge: this.#pkce.challenge };
    return fillPlaceholders(text, { state, ...(this.#nonce && { nonce: this.#nonce }), ...pkce, ...more });
  }

  #keep(grant: Grant): void {
    this.#values = {
      ...this.#values,
      accessToken: grant.accessToken,
      refreshToken: grant.refreshToken ?? this.#values.refreshToken,
    };
    this.#learn({ captured: grant.captured });
    this.#furtherTokens = { ...this.#furtherTokens, ...grant.furtherTokens };
  }

  #expect(answer: TokenAnswer, reads: Reads, isPoll = false): void {
    if (answer.kind === "failed") {
      const { failure } = answer;
      const read =
        (isPoll ? readPollState(this.#definition, failure.oauthError) : null) ?? meanings[failure.code] ?? failure.code;
      expect(`refused: ${read} (${failure.detail})`).toContain(`refused: ${reads.refused ?? "not at all"} `);
      return;
    }
    expect(reads.refused, "the answer was read as a grant").toBeUndefined();
    const { captured, account, ...others } = reads;
    expectGrant(answer.grant, others, this.#definition);
    if (captured !== undefined) expect(this.#captured).toEqual(captured);
    if (account !== undefined) expect(this.#account()).toBe(account);
  }
}

const meanings: Record<string, string> = {
  invalid_grant: "needs_reauthorization",
  invalid_client: "client_rejected",
  rate_limited: "rate_limited",
  blocked: "blocked",
  provider_unavailable: "transient",
  outcome_unknown: "unknown",
  unreadable_answer: "unknown",
};

function expectGrant(grant: Grant, reads: Reads, definition: ProviderDefinition): void {
  const { accessToken = null, refreshToken = null } = grant;
  if (reads.access_token !== undefined) expect(accessToken).toBe(reads.access_token);
  if (reads.refresh_token !== undefined) expect(refreshToken).toBe(reads.refresh_token);
  if (reads.token_type !== undefined) expect(grant.tokenType).toBe(reads.token_type);
  if (reads.scopes !== undefined) expect(grant.scopes).toEqual(reads.scopes);
  if (reads.expires_in === "introspect") expect(definition.response.expires.from).toBe("introspect");
  else if (reads.expires_in !== undefined) expectLife(grant.accessExpiry, reads.expires_in);
  if (reads.refresh_expires_in !== undefined) expectLife(grant.refreshExpiry, reads.refresh_expires_in);
  for (const [name, extra] of Object.entries(reads.extra ?? {})) {
    const read = grant.furtherTokens?.[name];
    if (read === undefined) throw new Error(`no further token ${name} was read`);
    expectGrant(read, extra, definition);
  }
}

function expectLife(expiry: Expiry, seconds: number | null | "introspect"): void {
  if (seconds === null || seconds === "introspect") {
    expect(["never", "unstated"]).toContain(expiry.kind);
    return;
  }
  const read =
    expiry.kind === "at" ? expiry.epochSeconds - Date.now() / 1000 : expiry.kind === "in" ? expiry.seconds : NaN;
  expect(Math.abs(read - seconds), `a life of ${read} s was read, not ${seconds} s`).toBeLessThanOrEqual(2);
}

/** As the broker would have them: defaults where none are given. */
function inputsOf(definition: ProviderDefinition, { inputs = {} }: Transcript): Record<string, string> {
  const defaults = Object.entries(definition.inputs).flatMap(([name, { default: usual, optional }]) =>
    usual === undefined && !optional ? [] : [[name, usual ?? ""] as const],
  );
  return { ...Object.fromEntries(defaults), ...inputs };
}

function sortedUrl(text: string): string {
  const url = new URL(text);
  url.searchParams.sort();
  return url.href;
}
