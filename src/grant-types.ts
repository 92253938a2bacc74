/** The grants by which a connection may get its tokens (RFC 6749, section 4; RFC 8628; `import` is a set handed over by hand). */
export const connectionGrants = [
  "authorization_code",
  "client_credentials",
  "password",
  "device_code",
  "import",
] as const;
export type ConnectionGrant = (typeof connectionGrants)[number];

/** The grant of a row: that of a connection, or of a further token that is exchanged for the connection's (RFC 8693). */
type StoredGrant = ConnectionGrant | "token_exchange";

/** The grants that a token endpoint is asked for (RFC 6749, section 4.5 for the name; RFC 8628; RFC 8693). */
export type TokenGrant = Exclude<StoredGrant, "import"> | "refresh_token";

export type GrantRules = Readonly<
  {
    /** How a person consents at the provider: in a browser that comes back, or by a code that is typed in there. Null: there is no consent. */
    consent: "redirect" | "user_code" | null;
    /** The stored secret that its own token request sends; null: it sends none, or what a person has just brought. */
    sends: "credentials" | "subject_token" | null;
    /** It can ask for a new token only while there are credentials. */
    needsCredentials: boolean;
    /** RFC 6749, section 4.4.3, wants no refresh token in an answer to client credentials. */
    hasRefreshToken: boolean;
    /** Only the client is asked about: when the client is mended, its grant is. */
    isOfClient: boolean;
    /** It sends a person's password: a refused one is never sent again, since providers lock accounts for that. */
    isLogin: boolean;
    /** What people read when it has ended. */
    reauthorizationAdvice: string;
  } & (
    | {
        needsPerson: true;
        /** What people read while nobody has connected it. */
        pendingAdvice: string;
      }
    /** The broker asks for tokens with what it stores. Such a row may be refreshed while it is pending, and without a refresh token. */
    | { needsPerson: false }
  )
>;

const byConsent = {
  needsPerson: true,
  sends: null,
  needsCredentials: false,
  hasRefreshToken: true,
  isOfClient: false,
  isLogin: false,
  pendingAdvice: "Nobody has connected the account yet; send a person a consent link.",
  reauthorizationAdvice: "The grant has ended; a person must connect the account again through a new consent link.",
} as const;

/** All that differs by grant and can be said without a definition. Whoever adds a grant fills in its line, or nothing compiles. */
const rules: Readonly<Record<StoredGrant, GrantRules>> = {
  authorization_code: { ...byConsent, consent: "redirect" },
  device_code: { ...byConsent, consent: "user_code" },
  import: {
    ...byConsent,
    consent: null,
    pendingAdvice: "No token set has been imported yet.",
    reauthorizationAdvice: "The grant has ended; import a new token set.",
  },
  client_credentials: {
    needsPerson: false,
    consent: null,
    sends: "credentials",
    needsCredentials: false,
    hasRefreshToken: false,
    isOfClient: true,
    isLogin: false,
    reauthorizationAdvice: "The provider ended this grant; correct the client at the provider.",
  },
  password: {
    needsPerson: false,
    consent: null,
    sends: "credentials",
    needsCredentials: true,
    hasRefreshToken: true,
    isOfClient: false,
    isLogin: true,
    reauthorizationAdvice: "The provider refuses the stored credentials; send new ones with PATCH.",
  },
  token_exchange: {
    needsPerson: false,
    consent: null,
    sends: "subject_token",
    needsCredentials: false,
    hasRefreshToken: true,
    isOfClient: false,
    isLogin: false,
    reauthorizationAdvice: "The provider gives no further token any more; connect the account again.",
  },
};

/** One that a newer version has stored: only a person helps, and no consent of this version does. */
const unknown: GrantRules = { ...byConsent, consent: null };

/** @param grant as it stands in a row */
export function rulesOfGrant(grant: string): GrantRules {
  return Object.hasOwn(rules, grant) ? rules[grant as StoredGrant] : unknown;
}

const storedGrants = Object.keys(rules) as StoredGrant[];

/** For statements: the grants that get tokens without a person, and those that only the client is asked about. */
export const grantsWithoutPerson = storedGrants.filter((grant) => !rules[grant].needsPerson);
export const grantsOfClient = storedGrants.filter((grant) => rules[grant].isOfClient);

/** `app`: a person's grant counts only if an app completes it for the user who is signed in there; everything else by which one comes is forbidden. */
export type CompletionRule = "any" | "app";
