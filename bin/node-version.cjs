"use strict";
// Ends a start under a Node.js that is too old with one line. It is loaded first, and is written so that any Node.js can read it: the
// rest of the project is not.
var needed = parseInt(/\d+/.exec(require("../package.json").engines.node)[0], 10);
if (parseInt(process.versions.node, 10) < needed) {
  process.stderr.write(
    "freshet: Node.js " +
      needed +
      " or later is needed, and this is " +
      process.versions.node +
      '; "npm ci" brings one along on Linux and Windows, which "npm start" and "npm run -s freshet" use: elsewhere install it from https://nodejs.org\n',
  );
  process.exit(2);
}
