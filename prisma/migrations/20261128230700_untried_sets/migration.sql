-- A set that a person handed over, and that no refresh has succeeded with: it takes only the part of a provider's limits that is for what has never worked.
ALTER TABLE connections ADD COLUMN untried BOOLEAN NOT NULL DEFAULT false;
