-- Refusals that say nothing about the grant, counted while they are equal: five over an hour, with the access token over, tell a person.
ALTER TABLE connections
  ADD COLUMN refusal text,
  ADD COLUMN refusals integer NOT NULL DEFAULT 0,
  ADD COLUMN refused_since timestamptz(3),
  ADD COLUMN probably_dead_since timestamptz(3),
  -- When somebody last had the stored refresh token of an ended connection tried once more.
  ADD COLUMN retried_at timestamptz(3);

-- Permits of such retries, for whoever lets them lapse.
CREATE INDEX connections_retried_idx ON connections (lease_until)
  WHERE attempt_id IS NOT NULL AND enabled_status = 'needs_reauthorization';

-- Since when there are two secrets, and since when the newer one has been refused while the older one works.
ALTER TABLE clients
  ADD COLUMN secret_rotating_since timestamptz(3),
  ADD COLUMN old_secret_since timestamptz(3);
UPDATE clients SET secret_rotating_since = updated_at WHERE previous_secret_sealed IS NOT NULL;
