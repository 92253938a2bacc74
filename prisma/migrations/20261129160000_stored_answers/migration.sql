-- The attempts whose answers were stored: they tell for 90 days whether an answer that comes late is stored already. No foreign or unique key,
-- since a row is written beside a token set and must never fail it.
CREATE TABLE stored_answers (
  attempt_id UUID NOT NULL,
  stored_at TIMESTAMPTZ(3) NOT NULL DEFAULT clock_timestamp()
);
CREATE INDEX stored_answers_attempt_id_idx ON stored_answers (attempt_id);
-- Rows are written in the order of their times, so this index has one entry for many pages.
CREATE INDEX stored_answers_stored_at_idx ON stored_answers USING BRIN (stored_at);
-- What the history knew of it.
INSERT INTO stored_answers (attempt_id, stored_at)
  SELECT (detail->>'attempt')::uuid, at FROM connection_events
  WHERE detail->>'attempt' ~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$';
