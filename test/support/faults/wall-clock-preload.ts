import { readFileSync } from "node:fs";

// Given to a process with `--import` where libfaketime cannot be had: its dates are ahead of the clock, or behind it.
const file = process.env["FAKETIME_TIMESTAMP_FILE"] ?? "";
const MachineDate = Date;

function nowMs(): number {
  return MachineDate.now() + Number(readFileSync(file, "utf8")) * 1000;
}

globalThis.Date = new Proxy(MachineDate, {
  construct: (target, given: unknown[], newTarget) =>
    Reflect.construct(target, given.length === 0 ? [nowMs()] : given, newTarget) as object,
  apply: () => new MachineDate(nowMs()).toString(),
  get: (target, name, receiver) => (name === "now" ? nowMs : (Reflect.get(target, name, receiver) as unknown)),
});
