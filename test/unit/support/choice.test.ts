import { describe, expect, it } from "vitest";
import { type Surroundings, choosePrivateSource, chooseSource, describeSource } from "../../support/services/choice.ts";

const everything: Surroundings = {
  url: "postgresql://owner:hush@db.internal:5432/ci",
  dockerEngine: true,
  programFolder: "/usr/lib/postgresql/17/bin",
  mayInstall: true,
};
const nothing: Surroundings = { dockerEngine: false, mayInstall: false };

describe("where a service for tests comes from", () => {
  it.each([
    ["a URL before anything else", everything, "url"],
    ["a Docker engine where no URL is given", { ...everything, url: undefined }, "docker"],
    ["a Docker engine even where nothing else is", { ...nothing, dockerEngine: true }, "docker"],
    ["programs where there is no Docker engine", { ...everything, url: "", dockerEngine: false }, "programs"],
    ["apt-get for root on Debian that has nothing yet", { ...nothing, mayInstall: true }, "apt-get"],
    ["nowhere when unprivileged and nothing is there", nothing, "nowhere"],
  ])("is %s", (_name, around, from) => {
    expect(chooseSource("postgres", around).from).toBe(from);
    expect(chooseSource("redis", around).from).toBe(from);
  });

  it("is never another's server when a test wants to stop it", () => {
    expect(choosePrivateSource("postgres", everything)).toEqual({ from: "docker" });
    expect(choosePrivateSource("postgres", { ...nothing, url: everything.url }).from).toBe("nowhere");
  });

  it("names the remedy when tests are skipped", () => {
    const line = describeSource("redis", chooseSource("redis", nothing));
    expect(line).toContain("TEST_REDIS_URL");
    expect(line).toContain("Docker");
    expect(line).toContain("redis-server");
  });

  it("is printed without the URL's password", () => {
    const line = describeSource("postgres", chooseSource("postgres", everything));
    expect(line).toContain("db.internal:5432");
    expect(line).not.toContain("hush");
  });
});
