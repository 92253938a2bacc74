import { bodies, values } from "./hostile-bodies.ts";
import { errors } from "./hostile-errors.ts";
import type { HostileAnswer } from "./hostile-steps.ts";
import { wire } from "./hostile-wire.ts";

/** Every one of them; what is told of tokens comes last, since it has brought brokers down. */
export const hostileAnswers: readonly HostileAnswer[] = [...wire, ...bodies, ...values, ...errors];
