-- With a million connections no statement may look at rows that it does not need (test/contract/plans.test.ts).

-- The lists of operators: newest first, and with each filter. Both columns in one direction, so that a further page begins where the last one ended.
DROP INDEX "connections_created_at_id_idx";
CREATE INDEX "connections_created_at_id_idx" ON "connections"("created_at", "id") WHERE (parent_id IS NULL);
CREATE INDEX "connections_status_created_at_id_idx" ON "connections"("status", "created_at", "id") WHERE (parent_id IS NULL);
CREATE INDEX "connections_provider_created_at_id_idx" ON "connections"("provider", "created_at", "id") WHERE (parent_id IS NULL);
CREATE INDEX "connections_client_ref_created_at_id_idx" ON "connections"("client_ref", "created_at", "id");
DROP INDEX "connections_client_ref_idx";
-- Names that begin with what a caller's patterns begin with.
CREATE INDEX "connections_name_pattern_idx" ON "connections"("name" text_pattern_ops) WHERE (parent_id IS NULL);
-- Most connections have no labels, no inputs and no parent: they need no entry.
DROP INDEX "connections_labels_idx";
CREATE INDEX "connections_labels_idx" ON "connections" USING GIN ("labels") WHERE (labels <> '{}'::jsonb);
CREATE INDEX "connections_inputs_idx" ON "connections" USING GIN ("inputs" jsonb_path_ops) WHERE (inputs <> '{}'::jsonb);
DROP INDEX "connections_parent_id_idx";
CREATE INDEX "connections_parent_id_idx" ON "connections"("parent_id") WHERE (parent_id IS NOT NULL);

-- Other connections of an account, also of one that is not known.
CREATE INDEX "connections_account_client_ref_provider_idx" ON "connections"("account", "client_ref", "provider") WHERE (parent_id IS NULL);

-- What is due, without rows that wait for an operator; permits; rows that wait for an operator.
DROP INDEX "connections_due_idx";
CREATE INDEX "connections_due_idx" ON "connections"("next_refresh_at")
  WHERE (next_refresh_at IS NOT NULL AND status IN ('connected', 'pending') AND gone_back_from IS NULL);
CREATE INDEX "connections_permits_idx" ON "connections"("attempt_started_at") WHERE (attempt_id IS NOT NULL);
CREATE INDEX "connections_gone_back_idx" ON "connections"("name") WHERE (gone_back_from IS NOT NULL);

-- CreateIndex
CREATE INDEX "clients_created_at_id_idx" ON "clients"("created_at", "id");
CREATE INDEX "clients_provider_created_at_id_idx" ON "clients"("provider", "created_at", "id");
DROP INDEX "clients_provider_idx";

DROP INDEX "api_keys_created_at_id_idx";
CREATE INDEX "api_keys_created_at_id_idx" ON "api_keys"("created_at", "id");
CREATE INDEX "api_keys_labels_idx" ON "api_keys" USING GIN ("labels") WHERE (labels <> '{}'::jsonb);
-- Whether anybody may administer the broker.
CREATE INDEX "api_keys_admin_idx" ON "api_keys"("created_at")
  WHERE (revoked_at IS NULL AND 'admin'::text = ANY (abilities) AND labels = '{}'::jsonb);

-- A connection that is deleted takes its requests with it.
CREATE INDEX "authorization_requests_connection_id_idx" ON "authorization_requests"("connection_id");
CREATE INDEX "held_grants_created_at_idx" ON "held_grants"("created_at");

-- Tombstones stay for good. Those that still hold what revokes a late answer are few.
CREATE INDEX "tombstones_revocable_idx" ON "tombstones"("deleted_at")
  WHERE (client_ref IS NOT NULL OR inputs <> '{}'::jsonb OR captured <> '{}'::jsonb);
CREATE INDEX "tombstones_client_ref_idx" ON "tombstones"("client_ref") WHERE (client_ref IS NOT NULL);

-- Room that deleted rows leave is used by new ones. A block range index would then find a page for its oldest row, as often as it is asked.
DROP INDEX "stored_answers_stored_at_idx";
CREATE INDEX "stored_answers_stored_at_idx" ON "stored_answers"("stored_at");

-- Each refresh writes a row three or four times and its tokens once. Postgres would begin to clean up when a fifth of all is dead; the room that a
-- connection takes (docs/performance.md) needs it sooner.
ALTER TABLE "connections" SET (autovacuum_vacuum_scale_factor = 0.02, toast.autovacuum_vacuum_scale_factor = 0.02);
