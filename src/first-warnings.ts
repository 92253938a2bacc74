import { configVariables, type Environment, secretVariables } from "./config.ts";
import { withSource } from "./env-file.ts";
import { describeNearMiss, findNearMisses } from "./near-miss.ts";

/** What a start goes on with, though it is most likely not what was meant: a line for the log each, with its variable or the file. */
export type FirstWarning = { variable?: string; file?: string; text: string };

/** Node reads this one by itself, once, before the broker runs. */
const certificates = "NODE_EXTRA_CA_CERTS";

/** Of the variables that are set, never with a value. */
export function firstWarnings({ env, file }: Environment): FirstWarning[] {
  const known = [...configVariables, certificates];
  const nearMisses = findNearMisses(env, known).map((each) => ({
    variable: each.variable,
    text: withSource(describeNearMiss(each), file),
  }));
  const twice = secretVariables
    .filter((name) => env[name] && env[`${name}_FILE`])
    .map((name) => ({
      variable: `${name}_FILE`,
      text: withSource(
        `${name} and ${name}_FILE are both set, and ${name} counts: take the one away that you do not mean`,
        file,
      ),
    }));
  const tooLate = file?.values[certificates] !== undefined;
  const passedOver = file?.problems.map((text) => ({ file: file.path, text })) ?? [];
  return [...passedOver, ...nearMisses, ...twice, ...(tooLate ? [lateCertificates] : [])];
}

const lateCertificates = {
  variable: certificates,
  text: `${certificates} comes too late in .env, since Node reads it before: set it in the environment`,
};
