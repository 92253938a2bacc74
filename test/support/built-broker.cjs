"use strict";
// bin/broker.cjs without its comparison of the bundle with the sources, a tenth of a start: services/bundles.ts makes that once for the whole run.
require("../../bin/load.cjs").requirePart("./broker.cjs");
