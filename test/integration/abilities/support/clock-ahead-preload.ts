// Given to a broker with `--import`: SIGUSR2 puts its monotonic clock a minute ahead, SIGPWR an hour, so that nobody waits.
let aheadMs = 0;
const now = performance.now.bind(performance);

performance.now = () => now() + aheadMs;
process.on("SIGUSR2", () => (aheadMs += 61_000));
process.on("SIGPWR", () => (aheadMs += 3_601_000));
