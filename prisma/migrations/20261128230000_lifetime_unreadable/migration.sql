-- An answer may state a token's life in a way that cannot be read: whoever reads the token is told.
ALTER TABLE connections ADD COLUMN lifetime_unreadable BOOLEAN NOT NULL DEFAULT false;
