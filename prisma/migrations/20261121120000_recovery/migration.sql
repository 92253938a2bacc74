-- AlterTable
ALTER TABLE "connections" ADD COLUMN     "attempt_replays" INTEGER NOT NULL DEFAULT 0,
ADD COLUMN     "gone_back_from" INTEGER,
ADD COLUMN     "in_use" BOOLEAN NOT NULL DEFAULT false,
ADD COLUMN     "keep_alive_at" TIMESTAMPTZ(3),
ADD COLUMN     "refresh_due_at" TIMESTAMPTZ(3),
ADD COLUMN     "version_floor" INTEGER NOT NULL DEFAULT 0;

-- CreateTable
CREATE TABLE "candidates" (
    "attempt_id" UUID NOT NULL,
    "connection_id" UUID NOT NULL,
    "authorization_seq" INTEGER NOT NULL,
    "base_generation" INTEGER NOT NULL,
    "record_sealed" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "candidates_pkey" PRIMARY KEY ("attempt_id")
);

-- CreateIndex
CREATE INDEX "candidates_connection_id_created_at_idx" ON "candidates"("connection_id", "created_at" DESC);

-- CreateIndex
CREATE INDEX "connections_due_idx" ON "connections"("next_refresh_at") WHERE (next_refresh_at IS NOT NULL AND status IN ('connected', 'pending'));

-- CreateIndex
CREATE INDEX "tombstones_connection_id_idx" ON "tombstones"("connection_id");

-- AddForeignKey
ALTER TABLE "candidates" ADD CONSTRAINT "candidates_connection_id_fkey" FOREIGN KEY ("connection_id") REFERENCES "connections"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- Connections of the version before are looked at once, at three quarters of their tokens' lives.
UPDATE "connections" SET "in_use" = true,
  "refresh_due_at" = "issued_at" + ("expires_at" - "issued_at") * 0.75,
  "next_refresh_at" = "issued_at" + ("expires_at" - "issued_at") * 0.75
WHERE "status" = 'connected' AND "expires_at" IS NOT NULL AND "refresh_token_sealed" IS NOT NULL;
