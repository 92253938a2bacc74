-- Answers that nobody could read stand beside the connections: each read of a row would carry one along.
-- No foreign key: what is written beside a refresh must never wait for, or fail by, another row.
CREATE TABLE "unread_answers" (
    "id" UUID NOT NULL DEFAULT gen_random_uuid(),
    "connection_id" UUID NOT NULL,
    "generation" INTEGER NOT NULL,
    "attempt_id" UUID,
    "answer_sealed" BYTEA NOT NULL,
    "received_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "unread_answers_pkey" PRIMARY KEY ("id")
);

CREATE INDEX "unread_answers_connection_id_received_at_idx" ON "unread_answers"("connection_id", "received_at" DESC);
CREATE INDEX "unread_answers_received_at_idx" ON "unread_answers"("received_at");

INSERT INTO "unread_answers" ("connection_id", "generation", "attempt_id", "answer_sealed")
SELECT "id", "generation", "attempt_id", "attempt_answer_sealed" FROM "connections" WHERE "attempt_answer_sealed" IS NOT NULL;

ALTER TABLE "connections" DROP COLUMN "attempt_answer_sealed";
