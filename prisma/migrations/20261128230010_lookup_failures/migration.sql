-- A lookup of the account that fails is not repeated with every renewal: how often it has failed, and when last.
ALTER TABLE connections ADD COLUMN lookup_failures INTEGER NOT NULL DEFAULT 0;
ALTER TABLE connections ADD COLUMN lookup_failed_at TIMESTAMPTZ(3);
