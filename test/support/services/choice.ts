/** A server that the suite needs from outside this project. */
export type ServiceKind = "postgres" | "redis";

/** What the machine offers for one service, as `surroundings.ts` finds it. */
export type Surroundings = {
  /** `TEST_DATABASE_URL` or `TEST_REDIS_URL`. */
  url?: string | undefined;
  dockerEngine: boolean;
  /** Folder that holds the server's programs. */
  programFolder?: string | undefined;
  /** Root on Debian or Ubuntu, so that apt-get may install what is missing. */
  mayInstall: boolean;
};

/** Where one service comes from. */
export type Source =
  | { from: "url"; url: string }
  | { from: "docker" }
  | { from: "programs"; folder: string }
  | { from: "apt-get"; packageName: string }
  | { from: "nowhere"; remedy: string };

const packages = { postgres: "postgresql", redis: "redis-server" } as const;
const programs = { postgres: "postgres and initdb", redis: "redis-server" } as const;
const variables = { postgres: "TEST_DATABASE_URL", redis: "TEST_REDIS_URL" } as const;

/** The variable that names a server to use instead of any other. */
export function urlVariable(kind: ServiceKind): string {
  return variables[kind];
}

/** The first that serves: a URL, a Docker engine, programs on the machine, apt-get; else nothing, with the remedy. */
export function chooseSource(kind: ServiceKind, around: Surroundings): Source {
  if (around.url) return { from: "url", url: around.url };
  if (around.dockerEngine) return { from: "docker" };
  if (around.programFolder) return { from: "programs", folder: around.programFolder };
  if (around.mayInstall) return { from: "apt-get", packageName: packages[kind] };
  return { from: "nowhere", remedy: remedyFor(kind) };
}

/** Where private instances come from, which a test may stop and kill: never from a server that others use. */
export function choosePrivateSource(kind: ServiceKind, around: Surroundings): Source {
  return chooseSource(kind, { ...around, url: undefined });
}

/** What a person does so that the skipped tests run. */
export function remedyFor(kind: ServiceKind): string {
  return `set ${variables[kind]}, start Docker, or install ${programs[kind]} (Debian package ${packages[kind]})`;
}

/** One phrase for the line that the suite prints. A URL's host is named, never its password. */
export function describeSource(kind: ServiceKind, source: Source): string {
  if (source.from === "url") return `${kind} at ${new URL(source.url).host} (${variables[kind]})`;
  if (source.from === "docker") return `${kind} in a Docker container`;
  if (source.from === "programs") return `${kind} from ${source.folder}, a private instance`;
  if (source.from === "apt-get") return `${kind} from the package ${source.packageName}, installed now by apt-get`;
  return `no ${kind}: its tests are skipped; to run them, ${source.remedy}`;
}
