import { generateKeyPairSync } from "node:crypto";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, describe, expect, it } from "vitest";
import { stringify } from "yaml";
import { StartupError } from "../../../src/errors.ts";
import { readWorkloads } from "../../../src/start/workloads-file.ts";

const folder = mkdtempSync(join(tmpdir(), "freshet-workloads-file-"));
const path = join(folder, "workloads.yaml");
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const read = (text: string) => {
  writeFileSync(path, text);
  return readWorkloads(path);
};
/** The lines of the refusal, without the path of the file. */
const faultsOf = (text: string): string[] => {
  try {
    read(text);
    return [];
  } catch (error) {
    if (!(error instanceof StartupError)) throw error;
    return error.lines.map((line) => line.replaceAll(path, "FILE"));
  }
};

const jwk = generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ format: "jwk" });
const good = {
  name: "sync",
  issuer: "https://issuer.example",
  audience: "freshet",
  match: { sub: "shop:sync" },
  abilities: ["tokens"],
  connections: ["acme-*"],
};
const file = (...workloads: object[]) => stringify({ workloads }, { aliasDuplicateObjects: false });

describe("WORKLOADS_FILE", () => {
  it("declares what POST /workloads does, as YAML or JSON, with the same defaults", () => {
    const full = {
      ...good,
      name: "full",
      jwks: { keys: [jwk] },
      algorithms: ["ES256"],
      match: { sub: ["a", "b"], "/k/ns": "shop" },
      labels: { customer: "acme" },
      expires_at: "2027-01-31T00:00:00Z",
    };
    for (const text of [file(good, full), JSON.stringify({ workloads: [good, full] })]) {
      expect(read(text).file).toEqual([
        {
          ...good,
          jwks: null,
          jwksUri: null,
          ca: null,
          networks: [],
          algorithms: ["RS256", "ES256"],
          labels: {},
          expiresAt: null,
        },
        {
          ...good,
          name: "full",
          jwks: JSON.stringify({ keys: [jwk] }),
          jwksUri: null,
          ca: null,
          networks: [],
          algorithms: ["ES256"],
          match: full.match,
          labels: { customer: "acme" },
          expiresAt: new Date("2027-01-31T00:00:00Z"),
        },
      ]);
    }
    expect(readWorkloads(null).file).toEqual([]);
    expect(read("workloads: []").file).toEqual([]);
  });

  it("ends the start with one line for each fault, all at once, with its place", () => {
    const text = file(
      { ...good, name: "Sync", audiense: "freshet", abilities: ["tokens", "all"], connections: "acme" },
      { ...good, issuer: "http://issuer.example", networks: ["10.0.0.0"] },
      { name: "rest" },
      { ...good, name: "twice", match: { sub: "shop:*" } },
      { ...good, name: "twice", match: { sub: "other" } },
      {
        ...good,
        name: "nightly",
        issuer: "https://token.actions.githubusercontent.com",
        match: { ref: "refs/heads/main" },
      },
      "text" as unknown as object,
    );
    expect(faultsOf(text)).toEqual([
      expect.stringMatching(
        /^WORKLOADS_FILE: FILE:11:\d+: audiense: unknown setting `audiense`; did you mean `audience`\?$/,
      ),
      expect.stringMatching(/^WORKLOADS_FILE: FILE:2:\d+: name: must match /),
      expect.stringMatching(/: abilities\.1: must be one of: tokens, connections, admin$/),
      expect.stringMatching(/: connections: must be a list$/),
      expect.stringMatching(/: issuer: must be an https URL/),
      expect.stringMatching(/: networks\.0: "10\.0\.0\.0" is not a CIDR block/),
      expect.stringMatching(/: `issuer` is missing$/),
      expect.stringMatching(/: `audience` is missing$/),
      expect.stringMatching(/: `match` is missing$/),
      expect.stringMatching(/: `abilities` is missing$/),
      expect.stringMatching(/: `connections` is missing$/),
      expect.stringMatching(/: name: stands twice in this file$/),
      expect.stringMatching(/: match: everybody can get tokens of https:\/\/token\.actions\.githubusercontent\.com/),
      expect.stringMatching(/: must be a map$/),
    ]);
  });

  it.each([
    ["", /FILE:1:1: the file is empty; a list `workloads` was expected$/],
    ["- name: a", /FILE:1:1: a map of settings was expected, such as "workloads: \[\]"$/],
    ["workload: []", /unknown setting; the file holds a list `workloads`$/],
    ["workloads: sync", /must be a list, each of its items a workload$/],
    ["workloads:\n  - name: a\n    name: b", /FILE:3:5: this key stands twice in the same map$/],
    [
      file(good, { ...good, name: "more", match: { sub: "shop:*" } }),
      /match: every token of one of the two would be one of sync/,
    ],
  ])("refuses %j", (text, fault) => {
    expect(faultsOf(text)).toContainEqual(expect.stringMatching(fault));
  });

  it("may name an owner at each of the issuers that everybody can use, and must", () => {
    const { shared } = readWorkloads(null);
    expect(shared.length).toBeGreaterThan(5);
    const owners: Record<string, [claim: string, tied: string, loose: string][]> = {
      "https://token.actions.githubusercontent.com": [
        ["sub", "repo:acme/*:ref:refs/heads/main", "repo:*/shop:ref:refs/heads/main"],
        ["sub", "repo:acme@12/shop@34:environment:production", "*"],
        ["repository", "acme/*", "*/shop"],
        ["repository_owner", "acme", "ac*"],
        ["repository_owner_id", "65", "6*"],
        ["repository_id", "74", "*"],
      ],
      "https://token.actions.githubusercontent.com/enterprise": [["sub", "repo:acme/shop:*", "repo:a*/shop:*"]],
      "https://gitlab.com": [
        ["sub", "project_path:acme/shop:ref_type:branch:ref:*", "project_path:*/shop:ref_type:branch:ref:main"],
        ["project_path", "acme/*", "*/shop"],
        ["namespace_path", "acme", "acm*"],
        ["namespace_id", "72", "7*"],
        ["project_id", "20", "*"],
      ],
      "https://agent.buildkite.com": [
        ["sub", "organization:acme:pipeline:*:ref:*:commit:*:step:*", "organization:*:pipeline:shop"],
        ["organization_slug", "acme", "a*"],
      ],
      "https://app.terraform.io": [
        ["sub", "organization:acme:project:*:workspace:*:run_phase:*", "organization:*:project:shop"],
        ["terraform_organization_id", "org-GRNbCjYNpBB6NEBH", "org-*"],
      ],
      "https://oidc.vercel.com": [["sub", "owner:acme:project:*:environment:production", "owner:*:project:shop"]],
      "https://accounts.google.com": [
        ["sub", "117", "1*"],
        ["email", "bot@acme.iam.gserviceaccount.com", "*@acme.iam.gserviceaccount.com"],
      ],
      "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0": [["oid", "0000-1111", "*"]],
    };
    for (const [issuer, cases] of Object.entries(owners)) {
      for (const [claim, tied, loose] of cases) {
        expect(faultsOf(file({ ...good, issuer, match: { [claim]: tied } })), `${claim}: ${tied}`).toEqual([]);
        const lines = faultsOf(file({ ...good, issuer, match: { [claim]: loose } }));
        expect(lines, `${claim}: ${loose}`).toEqual([expect.stringContaining("match: everybody can get tokens of")]);
        expect(faultsOf(file({ ...good, issuer, match: { ref: "main" } })).length).toBe(1);
      }
    }
  });
});
