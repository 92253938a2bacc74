#!/usr/bin/env node
"use strict";
require("./load.cjs").load("freshet", "src/cli/freshet.ts");
