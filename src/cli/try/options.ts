import type { ConnectionGrant } from "../../providers/definition.ts";
import { UsageError } from "../errors.ts";

/** The options of `freshet providers try`. */
export type TryOptions = {
  grant?: ConnectionGrant;
  clientId?: string;
  clientSecretFile?: string;
  scope?: string[];
  input?: Record<string, string>;
  username?: string;
  passwordFile?: string;
  refreshTokenFile?: string;
  port?: number;
  redirectUri?: string;
  manual?: boolean;
  timeout?: number;
  /** False with `--no-refresh`. */
  refresh: boolean;
  revoke?: boolean;
};

/** How the code of an authorization code grant comes back: to a listener here, or by a person's hand. */
export function isPasted({ redirectUri, manual }: TryOptions): boolean {
  return redirectUri !== undefined || manual === true;
}

/** What can be seen to be wrong without looking at the definition. @throws UsageError */
export function checkOptions(options: TryOptions): void {
  const { clientSecretFile, passwordFile, refreshTokenFile, redirectUri, manual, port } = options;
  const onStdin = [clientSecretFile, passwordFile, refreshTokenFile].filter((file) => file === "-").length;
  if (onStdin > 1) throw new UsageError("Only one secret can come from stdin");
  if (redirectUri !== undefined && manual) {
    throw new UsageError("--manual uses the redirect URI of the definition: leave out --redirect-uri");
  }
  if (port !== undefined && isPasted(options)) {
    throw new UsageError("--port is for the listener on this machine, which --redirect-uri and --manual do without");
  }
  if (port !== undefined && port > 65_535) throw new UsageError("--port must be 65535 at most");
  if (redirectUri !== undefined && !URL.canParse(redirectUri)) throw new UsageError("--redirect-uri must be a URI");
}

/** What does not fit the definition's grant. @throws UsageError */
export function checkForGrant(options: TryOptions, grant: ConnectionGrant): void {
  const { port, manual, redirectUri, clientSecretFile, passwordFile, refreshTokenFile, username, refresh } = options;
  if (grant === "authorization_code" && isPasted(options) && clientSecretFile === "-") {
    throw new UsageError("The code is pasted on stdin: give the secret by a file, the environment or a prompt");
  }
  if (grant !== "authorization_code" && (manual || port !== undefined)) {
    throw new UsageError(`--port and --manual are for authorization_code, not for ${grant}`);
  }
  if (redirectUri !== undefined && grant !== "authorization_code" && grant !== "import") {
    throw new UsageError(`--redirect-uri is for authorization_code and import, not for ${grant}`);
  }
  if (grant !== "import" && refreshTokenFile !== undefined) {
    throw new UsageError("--refresh-token-file is for --grant import");
  }
  const isUntried = grant === "import" && !refresh;
  if (isUntried) throw new UsageError("--grant import is tried by a refresh: leave out --no-refresh");
  if (username === undefined && passwordFile !== undefined) throw new UsageError("--password-file needs --username");
}
