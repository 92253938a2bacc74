import { bodies, values } from "./hostile-bodies.ts";
import { errors } from "./hostile-errors.ts";
import type { HostileAnswer } from "./hostile-steps.ts";
import { wire } from "./hostile-wire.ts";

/** All hostile answers. Those about tokens come last, since they have crashed brokers before. */
export const hostileAnswers: readonly HostileAnswer[] = [...wire, ...bodies, ...values, ...errors];
