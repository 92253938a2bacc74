import { spawn } from "node:child_process";
import { constants } from "node:os";
import type { Logger } from "pino";
import { type Clock, withDeadline } from "../clock.ts";
import { type Config, type EncryptionKeySetting, parseKeyring, secretVariables, type Variables } from "../config.ts";
import { StartupError } from "../errors.ts";
import { processTimes } from "../time.ts";

type Running = { env: Variables; log: Pick<Logger, "warn">; clock: Pick<Clock, "monotonicMs" | "sleep"> };

/**
 * The configuration with the keyring that ENCRYPTION_KEYS_COMMAND prints; as it is, where there is no command. The keyring stays in the
 * memory of this process alone.
 * @throws StartupError when the command has printed none for `keysCommandPatienceMs`
 */
export async function withPrintedKeyring(config: Config, running: Running): Promise<Config> {
  if (config.encryptionKeysCommand === null) return config;
  const child: Child = { end: () => {} };
  const stopListening = endWith(child);
  try {
    const encryptionKeys = await printedKeyring(config.encryptionKeysCommand, running, child);
    return Object.freeze({ ...config, encryptionKeys });
  } finally {
    stopListening();
  }
}

/** What runs now, so that a signal ends it as well. */
type Child = { end: () => void };

/**
 * Ends this process upon a signal, and before it what runs. Without a handler a signal would leave the command behind, and would do nothing at
 * all to a broker that is the first process of a container.
 */
function endWith(child: Child): () => void {
  const handlers = (["SIGTERM", "SIGINT", "SIGHUP"] as const).map((signal) => {
    const handle = () => {
      child.end();
      process.exit(128 + constants.signals[signal]); // as a shell says it
    };
    process.on(signal, handle);
    return () => process.off(signal, handle);
  });
  return () => {
    for (const stop of handlers) stop();
  };
}

async function printedKeyring(
  command: string,
  { env, log, clock }: Running,
  child: Child,
): Promise<EncryptionKeySetting[]> {
  const { keysCommandPauseFirstMs, keysCommandPauseMaxMs, keysCommandPatienceMs } = processTimes;
  const endMs = clock.monotonicMs() + keysCommandPatienceMs;
  let pauseMs = keysCommandPauseFirstMs;
  for (;;) {
    const run = await runOnce(command, { env: withoutSecrets(env), clock }, child);
    if ("keys" in run) return run.keys;
    const leftMs = endMs - clock.monotonicMs();
    if (leftMs <= 0) throw new StartupError(givenUp(run.why));
    const nextMs = Math.min(pauseMs, leftMs);
    log.warn(
      { variable: "ENCRYPTION_KEYS_COMMAND" },
      `ENCRYPTION_KEYS_COMMAND ${run.why}; the start waits, runs it again in ${Math.ceil(nextMs / 1000)} s, and gives up ${inMinutes} after it began`,
    );
    await clock.sleep(nextMs);
    pauseMs = Math.min(2 * pauseMs, keysCommandPauseMaxMs);
  }
}

const inMinutes = `${processTimes.keysCommandPatienceMs / 60_000} minutes`;

const givenUp = (why: string) =>
  `ENCRYPTION_KEYS_COMMAND has printed no keyring for ${inMinutes}; the last time it ${why}. Run it by hand as the broker's user, with /bin/sh -c, and see what it says; to start without it, take it away and set ENCRYPTION_KEYS_FILE to your copy of the keyring (docs/keys-elsewhere.md)`;

const ownSecrets: ReadonlySet<string> = new Set(
  secretVariables
    // The way out of this network: a program that asks a service for keys may need it, too.
    .filter((name) => name !== "HTTPS_PROXY" && name !== "HTTP_PROXY")
    .flatMap((name) => [name, `${name}_FILE`]),
);

/**
 * The command's environment: the broker's, since only the command knows what it needs of it (PATH, HOME, VAULT_ADDR, AWS_PROFILE,
 * CREDENTIALS_DIRECTORY), without the broker's own secrets. The command runs as the broker's user, who can read those anyway; but programs write
 * their environment into crash reports and logs, and no program that asks for a key needs the address of the database.
 */
function withoutSecrets(env: Variables): Variables {
  return Object.fromEntries(Object.entries(env).filter(([name]) => !ownSecrets.has(name)));
}

/** `why`: in words of ours alone, never with what the command has printed. */
type Run = { keys: EncryptionKeySetting[] } | { why: string };

const longestOutputBytes = 64 * 1024;

async function runOnce(command: string, { env, clock }: Omit<Running, "log">, running: Child): Promise<Run> {
  // A process group of its own, so that what the shell has started ends with it. What it says on stderr may hold a secret, so nobody reads it.
  const child = spawn("/bin/sh", ["-c", command], { env, detached: true, stdio: ["ignore", "pipe", "ignore"] });
  let [bytes, isTooMuch, isOver] = [Buffer.alloc(0), false, false];
  const end = () => {
    if (!isOver) endGroup(child.pid); // later, another process may have its number
  };
  running.end = end;
  child.stdout.on("data", (chunk: Buffer) => {
    if (isTooMuch) return;
    bytes = Buffer.concat([bytes, chunk]);
    isTooMuch = bytes.length > longestOutputBytes;
    if (isTooMuch) end();
  });
  const ended = new Promise<string | null>((resolve) => {
    child.once("error", (error: NodeJS.ErrnoException) => resolve(`could not be run by /bin/sh (${error.code})`));
    child.once("exit", () => {
      end(); // a program that it has left in the background would hold its output open
      isOver = true;
    });
    child.once("close", (code, signal) => resolve(whyFailed(code, signal)));
  });
  const outcome = await withDeadline(
    ended.then((why) => ({ why })),
    processTimes.keysCommandMs,
    clock,
  );
  end();
  child.stdout.destroy(); // a program that has left the group may hold it open still
  if (isTooMuch) return { why: `printed more than ${longestOutputBytes / 1024} KiB` };
  if (outcome === null) return { why: `did not end within ${processTimes.keysCommandMs / 1000} s` };
  return outcome.why === null ? readPrinted(bytes) : { why: outcome.why };
}

function endGroup(pid: number | undefined): void {
  if (pid === undefined) return;
  try {
    process.kill(-pid, "SIGKILL");
  } catch {
    // It has ended, with all that it had started.
  }
}

/** What a shell means by these codes. */
const exitCodes: Readonly<Record<number, string>> = {
  126: ": it names a program that this user may not run",
  127: ": it names a program that is not there, or not in PATH",
};

function whyFailed(code: number | null, signal: NodeJS.Signals | null): string | null {
  if (signal !== null) return `was ended by ${signal}`;
  return code === 0 ? null : `ended with exit code ${code}${exitCodes[code ?? 0] ?? ""}`;
}

function readPrinted(bytes: Buffer): Run {
  const text = bytes.toString("utf8").trim();
  if (text === "") return { why: "printed nothing" };
  try {
    return { keys: parseKeyring(text) };
  } catch (error) {
    if (!(error instanceof StartupError)) throw error;
    return { why: "printed something that is no keyring (a comma list of id:base64(32 bytes))" };
  }
}
