import { installFailpoints } from "./failpoint-runtime.ts";

installFailpoints(() => process.env["FAILPOINTS"] ?? "");
