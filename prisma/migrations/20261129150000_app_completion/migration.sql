-- For whom an app has made a link; null: a plain link. And until when the code that came by it waits for the app.
ALTER TABLE consent_links ADD COLUMN end_user TEXT, ADD COLUMN held_until TIMESTAMPTZ(3);

-- SHA-256 of the ticket with which the app completes a request; null: its code has not come.
ALTER TABLE authorization_requests ADD COLUMN ticket_hash BYTEA;
CREATE UNIQUE INDEX authorization_requests_ticket_hash_key ON authorization_requests (ticket_hash);
