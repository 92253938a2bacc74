/**
 * For Node: V8 has one thread beside the main one, not four. What they do side by side costs more than it saves while other tests have the
 * cores.
 */
export const oneHelper = "--v8-pool-size=1";
