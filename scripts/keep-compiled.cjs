"use strict";
// Given to Node with --require: the process keeps, when it ends, what V8 has compiled of the bundle.
const load = require("../bin/load.cjs");

process.on("exit", load.keepCompiled);
