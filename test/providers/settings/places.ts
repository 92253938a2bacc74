/** A kind of request in a file: where its settings are, and what is seen of it in the full base. */
export type Place = {
  /** As `at` reads it. */
  path: string;
  /** Where it leads. */
  url: string;
  labels: readonly string[];
  /** What is sent before the fields that a file may choose. */
  lead: string;
  /** What is sent by itself after those, by label. */
  bodies: Readonly<Record<string, string>>;
  /** What a row sets beside its setting, on both sides. */
  given?: Readonly<Record<string, unknown>>;
  /** How the request says who asks: the client, unless given. */
  authorization?: string;
};

const tokenUrl = "https://login.example/token";
const redirectUri = "redirect_uri=https%3A%2F%2Fbroker.example%2Fcallback%2Fown";
const urn = "urn%3Aietf%3Aparams%3Aoauth%3A";
const params =
  `response_type=code&client_id=app-1&${redirectUri}&scope=read+write&state=state-1` +
  "&code_challenge=0Rg1yn7b0R1hLInM2pf4BU3eT3hIX_W1iTNui9njUxU&code_challenge_method=S256";

export const refreshLabels = ["exchange", "fetch", "login", "poll", "import"].map((first) => `refresh after ${first}`);

const first = (grant: string, label: string, sent: readonly [string, string]): Place => ({
  path: `token.grants.${grant}`,
  url: tokenUrl,
  labels: [label],
  lead: `grant_type=${sent[0]}`,
  bodies: { [label]: `grant_type=${sent[0]}&${sent[1]}` },
});

/** How each grant gets its first tokens: those of RFC 6749 and 8628. */
export const firstPlaces: Place[] = [
  first("authorization_code", "exchange", [
    "authorization_code",
    `code=code-1&${redirectUri}&code_verifier=verifier-1`,
  ]),
  first("client_credentials", "fetch", ["client_credentials", "scope=read+write"]),
  first("password", "login", ["password", "username=ann&password=pw&scope=read+write"]),
  first("device_code", "poll", [`${urn}grant-type%3Adevice_code`, "device_code=device-1"]),
];

const refreshPlace = (path: string, labels: readonly string[]): Place => ({
  path,
  url: tokenUrl,
  labels,
  lead: "grant_type=refresh_token",
  bodies: Object.fromEntries(labels.map((label) => [label, "grant_type=refresh_token&refresh_token=rt-0"])),
});

export const refreshPlaces: Place[] = [
  refreshPlace("token.grants.refresh_token", refreshLabels),
  ...firstPlaces.map(({ path, labels }) => refreshPlace(`${path}.refresh`, [`refresh after ${labels[0]}`])),
];

export const exchangePlace: Place = {
  path: "response.extra_tokens[1].exchange",
  url: tokenUrl,
  labels: ["get second"],
  lead: `grant_type=${urn}grant-type%3Atoken-exchange`,
  bodies: {
    "get second": `grant_type=${urn}grant-type%3Atoken-exchange&subject_token=at-0&subject_token_type=${urn}token-type%3Aaccess_token`,
  },
};

const revoked = { access: "revoke access token", refresh: "revoke refresh token" };

/** Requests beside the token endpoint. */
export const sidePlaces: Place[] = [
  {
    path: "authorization.pushed",
    url: "https://login.example/par",
    labels: ["pushed"],
    lead: params,
    bodies: { pushed: params },
  },
  {
    path: "device",
    url: "https://login.example/device",
    labels: ["device"],
    lead: "",
    bodies: { device: "client_id=app-1&scope=read+write" },
  },
  {
    path: "introspection",
    url: "https://login.example/introspect",
    labels: ["ask about access token"],
    lead: "",
    bodies: { "ask about access token": "token=at-0&token_type_hint=access_token" },
  },
  {
    path: "revocation",
    url: "https://login.example/revoke",
    labels: Object.values(revoked),
    lead: "",
    bodies: {
      [revoked.access]: "token=at-0&token_type_hint=access_token",
      [revoked.refresh]: "token=rt-0&token_type_hint=refresh_token",
    },
  },
];

/** With the access token, and without a body, unless a file says otherwise. */
export const lookupPlace: Place = {
  path: "after_connect[0].request",
  url: "https://api.example/me",
  labels: ["lookup"],
  lead: "",
  bodies: { lookup: "" },
  given: { method: "POST", encoding: "form" },
  authorization: "Bearer at-0",
};
