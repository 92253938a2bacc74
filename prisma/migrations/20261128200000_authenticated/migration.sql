-- What people set is authenticated by the keyring. SQL cannot compute it: the start that applies this fills it in at once
-- (src/upgrade/sealed-format.ts), and a row without it counts for nothing from then on.
ALTER TABLE "api_keys" ADD COLUMN "mac" TEXT;
ALTER TABLE "clients" ADD COLUMN "mac" TEXT;
ALTER TABLE "connections" ADD COLUMN "mac" TEXT;
ALTER TABLE "consent_links" ADD COLUMN "mac" TEXT;
ALTER TABLE "held_grants" ADD COLUMN "mac" TEXT;
