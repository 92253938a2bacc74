-- Callers that show tokens of their platform instead of a key. A deleted one stays until its name is declared anew, so that other replicas learn of its end.
CREATE TABLE workloads (
  id UUID PRIMARY KEY,
  name TEXT NOT NULL UNIQUE,
  issuer TEXT NOT NULL,
  jwks TEXT,
  jwks_uri TEXT,
  ca TEXT,
  networks TEXT[] NOT NULL,
  audience TEXT NOT NULL,
  algorithms TEXT[] NOT NULL,
  "match" TEXT NOT NULL,
  abilities TEXT[] NOT NULL,
  connections TEXT[] NOT NULL,
  labels JSONB NOT NULL DEFAULT '{}',
  expires_at TIMESTAMPTZ(3),
  deleted_at TIMESTAMPTZ(3),
  created_at TIMESTAMPTZ(3) NOT NULL,
  mac TEXT
);
