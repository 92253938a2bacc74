import { auditEntries } from "./audit/entries.ts";
import { auditProofs } from "./audit/proofs.ts";
import { auditRetention } from "./audit/retention.ts";
import { describeOnBothDatabases } from "./store/both-databases.ts";

describeOnBothDatabases([auditEntries, auditProofs, auditRetention]);
