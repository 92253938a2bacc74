-- A code that a key hands in belongs to no link and no browser.
ALTER TABLE "consent_attempts" ALTER COLUMN "browser_hash" DROP NOT NULL, ALTER COLUMN "link_id" DROP NOT NULL;
