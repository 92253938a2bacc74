import { configVariables, type Environment, secretVariables } from "./config.ts";
import { describeNearMiss, findNearMisses } from "./near-miss.ts";

/** What a start goes on with, though it is most likely not what was meant: a line for the log each, with its variable. */
export type FirstWarning = { variable: string; text: string };

/** Node reads this one by itself, once, before the broker runs. */
const certificates = "NODE_EXTRA_CA_CERTS";

/** Of the variables that are set, never with a value. */
export function firstWarnings({ env, file }: Environment): FirstWarning[] {
  const known = [...configVariables, certificates];
  const nearMisses = findNearMisses(env, known).map((each) => ({
    variable: each.variable,
    text: describeNearMiss(each),
  }));
  const twice = secretVariables
    .filter((name) => env[name] && env[`${name}_FILE`])
    .map((name) => ({
      variable: `${name}_FILE`,
      text: `${name} and ${name}_FILE are both set, and ${name} counts: take the one away that you do not mean`,
    }));
  const tooLate = file?.values[certificates] !== undefined;
  return [...nearMisses, ...twice, ...(tooLate ? [lateCertificates] : [])];
}

const lateCertificates = {
  variable: certificates,
  text: `${certificates} comes too late in .env, since Node reads it before: set it in the environment`,
};
