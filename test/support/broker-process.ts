import { type ChildProcess, spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { request } from "undici";
import { BrokerApi } from "./broker-api.ts";
import type { Failpoints } from "./faults/failpoints.ts";
import { freePort } from "./free-port.ts";
import { oneHelper } from "./one-helper.ts";
import { hangMs, until } from "./patience.ts";
import { guard, temporaryFolder } from "./services/guardian.ts";

export type BrokerOptions = {
  /** None: the embedded database. */
  databaseUrl?: string;
  /** Of the role that owns the tables. None: that of `databaseUrl` does. */
  migrationUrl?: string;
  /** None: locks in the process. */
  redisUrl?: string;
  /** What `providersFolder` wrote. */
  providersDir?: string;
  /** The address in redirect URIs and links; the process's own unless named. */
  publicUrl?: string;
  port?: number;
  adminKey?: string;
  encryptionKeys?: string;
  dataDir?: string;
  /** Added to the environment, or put in place of what it holds; `undefined` takes a variable out. */
  env?: Record<string, string | undefined>;
  /** What runs; the broker unless named. */
  entry?: string;
  /** Options of Node itself, such as `--import=…`. */
  nodeOptions?: readonly string[];
  /** What its failpoints do; `{}` for those that are set later, by `setFailpoints`. */
  failpoints?: Failpoints;
};

type Environment = Record<string, string | undefined>;

const projectRoot = fileURLToPath(new URL("../../", import.meta.url));
/** The folder where brokers leave their compiled code when they end normally. It saves a third of the work of a start. */
export const compileCache = fileURLToPath(new URL("../../node_modules/.cache/compiled", import.meta.url));
/** The broker with its failpoints armed, made by services/bundles.ts. One level below the root, as build/ is. */
export const armedFolder = join(projectRoot, "build-armed");
const faultPreload = fileURLToPath(new URL("faults/preload.ts", import.meta.url));

/** One real broker in a process of its own. It never outlives the test file, whatever happens to the test. */
export class BrokerProcess implements AsyncDisposable {
  readonly url: string;
  readonly publicUrl: string;
  readonly adminKey: string;
  readonly dataDir: string;
  readonly encryptionKeys: string;
  readonly api: BrokerApi;
  /** All that it has written, over restarts. */
  stdout = "";
  stderr = "";
  readonly #arguments: string[];
  readonly #environment: Environment;
  readonly #failpointFile: string | null;
  #child: ChildProcess | undefined;

  constructor(options: BrokerOptions & { port: number; dataDir: string; adminKey: string; encryptionKeys: string }) {
    this.url = `http://127.0.0.1:${options.port}`;
    this.publicUrl = options.publicUrl ?? this.url;
    this.adminKey = options.adminKey;
    this.dataDir = options.dataDir;
    this.encryptionKeys = options.encryptionKeys;
    this.api = new BrokerApi(this.url, this.adminKey);
    const entry = options.entry ?? brokerEntry({ armed: options.failpoints !== undefined });
    this.#failpointFile = options.failpoints === undefined ? null : `${this.dataDir}.failpoints`;
    if (options.failpoints !== undefined) this.setFailpoints(options.failpoints);
    const faults = faultEnvironment(this.#failpointFile);
    const preload = Object.keys(faults).length > 0 ? [`--import=${pathToFileURL(faultPreload).href}`] : [];
    this.#arguments = [oneHelper, ...(options.nodeOptions ?? []), ...preload, entry];
    this.#environment = { ...environmentFor({ ...options, publicUrl: this.publicUrl }), ...faults };
  }

  /** Of the process that was started last. */
  get pid(): number {
    if (this.#child?.pid === undefined) throw new Error("the broker was never started");
    return this.#child.pid;
  }

  /** The exit code of a process that ended by itself; null while it runs, and after a signal. */
  get exitCode(): number | null {
    return this.#child?.exitCode ?? null;
  }

  get isRunning(): boolean {
    return this.#child !== undefined && this.#child.exitCode === null && this.#child.signalCode === null;
  }

  /** The redirect URI that this broker uses for a provider. */
  redirectUri(provider: string): string {
    return `${this.publicUrl}/callback/${provider}`;
  }

  /** Starts it and waits until `/readyz` answers 200. @throws with its stderr when it ends instead. */
  async start(): Promise<this> {
    const child = this.launch();
    await until("the broker is ready", async () => {
      if (child.exitCode !== null || child.signalCode !== null) {
        throw new Error(`the broker ended with code ${child.exitCode}: ${this.stderr || this.stdout}`);
      }
      return await isReady(this.url);
    });
    return this;
  }

  /** Starts it without waiting, for tests of what happens on the way. */
  launch(): ChildProcess {
    const child = spawn(process.execPath, this.#arguments, {
      cwd: projectRoot,
      env: this.#environment,
      stdio: ["ignore", "pipe", "pipe"],
    });
    this.#child = child;
    child.stdout.setEncoding("utf8").on("data", (text: string) => (this.stdout += text));
    child.stderr.setEncoding("utf8").on("data", (text: string) => (this.stderr += text));
    if (child.pid !== undefined) child.once("exit", guard({ kind: "process", pid: child.pid }));
    return child;
  }

  /** Waits until it ends by itself, and gives its exit code. */
  async ended(): Promise<number | null> {
    const child = this.#child;
    if (child && child.exitCode === null && child.signalCode === null) await once(child, "close");
    return child?.exitCode ?? null;
  }

  /** Waits until it has drained and gone: on SIGTERM reads go on for some seconds, on SIGINT they do not. */
  async stop(signal: "SIGTERM" | "SIGINT" = "SIGTERM"): Promise<number | null> {
    this.#signal(signal);
    const late = setTimeout(() => {
      this.#signal("SIGKILL");
    }, hangMs);
    const code = await this.ended();
    clearTimeout(late);
    return code;
  }

  /** What the next start finds in its environment, beside or in place of what it had. */
  change(environment: Environment): void {
    Object.assign(this.#environment, environment);
  }

  /** kill -9. */
  async kill(): Promise<void> {
    this.#signal("SIGKILL");
    await this.ended();
  }

  /** SIGSTOP: it keeps its connections and locks, and does nothing. */
  freeze(): void {
    this.#signal("SIGSTOP");
  }

  thaw(): void {
    this.#signal("SIGCONT");
  }

  /** Resolves when it has stopped itself at a failpoint. */
  async untilFrozen(): Promise<void> {
    const isFrozen = () => /^State:\s+T/m.test(readFileSync(`/proc/${this.pid}/status`, "utf8"));
    await until("the broker has stopped itself", isFrozen, { everyMs: 10 });
  }

  /** Sets what its failpoints do from now on. They begin to count arrivals anew. Needs the option `failpoints`. */
  setFailpoints(failpoints: Failpoints): void {
    if (this.#failpointFile === null) throw new Error("start this broker with `failpoints: {}`");
    writeFileSync(`${this.#failpointFile}.new`, JSON.stringify(failpoints));
    renameSync(`${this.#failpointFile}.new`, this.#failpointFile);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.kill();
    await this.api.close();
    if (this.#failpointFile !== null) rmSync(this.#failpointFile, { force: true });
  }

  #signal(signal: NodeJS.Signals): void {
    this.#child?.kill(signal);
  }
}

/** One broker, ready. Take it with `await using`. */
export async function startBroker(options: BrokerOptions = {}): Promise<BrokerProcess> {
  return await (await prepareBroker(options)).start();
}

/** One broker that is not started yet. Its address is known already, so that a test can tell it to a peer. */
export async function prepareBroker(options: BrokerOptions = {}): Promise<BrokerProcess> {
  return new BrokerProcess({
    ...options,
    port: options.port ?? (await freePort()),
    dataDir: options.dataDir ?? (await temporaryFolder("data")).path,
    adminKey: options.adminKey ?? randomBytes(32).toString("base64url"),
    encryptionKeys: options.encryptionKeys ?? newEncryptionKey("k1"),
  });
}

/**
 * Replicas of one broker: they share keys and public address, and each has a port and a data folder of its own. `each`
 * says what else differs.
 */
export async function startBrokers(
  count: number,
  { each = () => ({}), ...options }: BrokerOptions & { each?: (replica: number) => Partial<BrokerOptions> },
): Promise<BrokerProcess[]> {
  const encryptionKeys = options.encryptionKeys ?? newEncryptionKey("k1");
  const first = await prepareBroker({ ...options, encryptionKeys, ...each(0) });
  const shared = { ...options, encryptionKeys, adminKey: first.adminKey, publicUrl: first.publicUrl };
  const others = await Promise.all(
    Array.from({ length: count - 1 }, (_, index) => prepareBroker({ ...shared, ...each(index + 1) })),
  );
  return await Promise.all([first, ...others].map((broker) => broker.start()));
}

/** An entry for `ENCRYPTION_KEYS`. */
function newEncryptionKey(id: string): string {
  return `${id}:${randomBytes(32).toString("base64")}`;
}

/** Takes nothing from the developer's own environment except PATH. */
function environmentFor(options: BrokerOptions & { port: number; dataDir: string; publicUrl: string }): Environment {
  const { databaseUrl } = options;
  const all: Environment = {
    PATH: process.env["PATH"],
    NODE_COMPILE_CACHE: compileCache,
    PORT: String(options.port),
    PUBLIC_URL: options.publicUrl,
    DATA_DIR: options.dataDir,
    DATABASE_URL: databaseUrl,
    DATABASE_MIGRATION_URL: options.migrationUrl,
    REDIS_URL: options.redisUrl,
    PROVIDERS_DIR: options.providersDir,
    PROVIDER_NETWORKS: "127.0.0.0/8",
    ADMIN_KEY: options.adminKey,
    // All browsers of the tests come from one address and load many pages, so these limits are high.
    LINK_PAGES_PER_MINUTE: "60000",
    CALLBACKS_PER_MINUTE: "60000",
    ENCRYPTION_KEYS: databaseUrl === undefined ? undefined : options.encryptionKeys,
    ...options.env,
  };
  return Object.fromEntries(Object.entries(all).filter(([, value]) => value !== undefined));
}

/** What `faults/preload.ts` reads. If the run tests a mutation, every broker of the run gets it. */
function faultEnvironment(failpointFile: string | null): Environment {
  const mutation = process.env["MUTATION"];
  return {
    ...(failpointFile === null ? {} : { FAILPOINTS: `@${failpointFile}` }),
    ...(mutation ? { MUTATION: mutation } : {}),
  };
}

/** Failpoints need a bundle that was built with them. A mutation needs the sources: it is made when they are loaded. */
function brokerEntry({ armed }: { armed: boolean }): string {
  if (process.env["MUTATION"]) return join(projectRoot, "src/main.ts");
  return armed ? join(armedFolder, "broker.cjs") : join(projectRoot, "test/support/built-broker.cjs");
}

async function isReady(url: string): Promise<boolean> {
  try {
    const answer = await request(`${url}/readyz`, { reset: true });
    await answer.body.dump();
    return answer.statusCode === 200;
  } catch {
    return false;
  }
}
