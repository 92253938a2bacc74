-- What a key is bound to beside names: a connection must carry each of these labels. None: any labels, or none.
ALTER TABLE api_keys ADD COLUMN labels JSONB NOT NULL DEFAULT '{}';
