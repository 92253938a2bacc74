-- When each key was used last. Apart from the keys, since whoever writes here must neither wait for a revocation nor undo one.
CREATE TABLE key_uses (
  key_id TEXT PRIMARY KEY,
  last_used_at TIMESTAMPTZ(3) NOT NULL
);
