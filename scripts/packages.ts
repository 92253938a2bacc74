import { readFileSync } from "node:fs";
import { resolve } from "node:path";

/** A package that `npm ci` installs. `production`: the image has it, too. */
export type Package = {
  name: string;
  version: string;
  license: string | null;
  production: boolean;
  hasInstallScript: boolean;
};

type Locked = {
  version?: string;
  license?: string;
  dev?: boolean;
  devOptional?: boolean;
  optional?: boolean;
  hasInstallScript?: boolean;
};

/** All of package-lock.json but this project itself. The image leaves out what is for development, and what is optional. */
export function readPackages(root = resolve(import.meta.dirname, "..")): Package[] {
  const { packages } = JSON.parse(readFileSync(resolve(root, "package-lock.json"), "utf8")) as {
    packages: Record<string, Locked>;
  };
  return Object.entries(packages).flatMap(([path, { version = "", license = null, ...is }]) =>
    path === ""
      ? []
      : [
          {
            name: path.slice(path.lastIndexOf("node_modules/") + "node_modules/".length),
            version,
            license,
            production: !is.dev && !is.devOptional && !is.optional,
            hasInstallScript: is.hasInstallScript === true,
          },
        ],
  );
}
