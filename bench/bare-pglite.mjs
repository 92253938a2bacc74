import { createServer } from "node:http";
import { PGlite } from "@electric-sql/pglite";

// The yardstick for a start on the embedded database: PGlite makes or opens a folder and answers one question.
const pglite = await PGlite.create(process.env["DATA_DIR"]);
await pglite.query("SELECT 1");
createServer((_request, response) => response.end()).listen(Number(process.env["PORT"]), "127.0.0.1");
