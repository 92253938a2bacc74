import fs from "node:fs";
import { syncBuiltinESMExports } from "node:module";
import { join } from "node:path";

/**
 * For `node --import`: holds the first link that a process makes until MEETING_SIZE processes have come to theirs. So all of them have seen
 * that no file is there. A process that ends before its link counts as well, so that nobody waits for it.
 */
const folder = process.env["MEETING"] ?? "";
const size = Number(process.env["MEETING_SIZE"]);
const pause = new Int32Array(new SharedArrayBuffer(4));
const link = fs.linkSync;
const arrive = () => fs.writeFileSync(join(folder, String(process.pid)), "");

fs.linkSync = (...paths) => {
  arrive();
  while (fs.readdirSync(folder).length < size) Atomics.wait(pause, 0, 0, 5);
  link(...paths);
};
syncBuiltinESMExports();
process.on("exit", arrive);
