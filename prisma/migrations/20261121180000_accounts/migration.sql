-- AlterTable
ALTER TABLE "connections" ADD COLUMN     "account_captured" JSONB NOT NULL DEFAULT '{}',
ADD COLUMN     "account_label" TEXT,
ADD COLUMN     "chain" TEXT,
ADD COLUMN     "looked_up" INTEGER,
ADD COLUMN     "parent_id" UUID;

-- CreateTable
CREATE TABLE "held_grants" (
    "attempt_id" UUID NOT NULL,
    "connection_id" UUID NOT NULL,
    "generation" INTEGER NOT NULL,
    "record_sealed" BYTEA NOT NULL,
    "account" TEXT,
    "account_label" TEXT,
    "link_id" TEXT,
    "accepted" BOOLEAN NOT NULL DEFAULT false,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "held_grants_pkey" PRIMARY KEY ("attempt_id")
);

-- CreateTable
CREATE TABLE "device_authorizations" (
    "connection_id" UUID NOT NULL,
    "id" UUID NOT NULL,
    "device_code_sealed" BYTEA NOT NULL,
    "link_id" TEXT,
    "user_code" TEXT NOT NULL,
    "verification_uri" TEXT NOT NULL,
    "verification_uri_complete" TEXT,
    "interval_s" INTEGER NOT NULL,
    "next_poll_at" TIMESTAMPTZ(3) NOT NULL,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock_timestamp(),

    CONSTRAINT "device_authorizations_pkey" PRIMARY KEY ("connection_id")
);

-- CreateIndex
CREATE INDEX "held_grants_connection_id_created_at_idx" ON "held_grants"("connection_id", "created_at" DESC);

-- CreateIndex
CREATE INDEX "device_authorizations_next_poll_at_idx" ON "device_authorizations"("next_poll_at");

-- CreateIndex
CREATE INDEX "connections_parent_id_idx" ON "connections"("parent_id");

-- AddForeignKey
ALTER TABLE "connections" ADD CONSTRAINT "connections_parent_id_fkey" FOREIGN KEY ("parent_id") REFERENCES "connections"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "held_grants" ADD CONSTRAINT "held_grants_connection_id_fkey" FOREIGN KEY ("connection_id") REFERENCES "connections"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "device_authorizations" ADD CONSTRAINT "device_authorizations_connection_id_fkey" FOREIGN KEY ("connection_id") REFERENCES "connections"("id") ON DELETE CASCADE ON UPDATE CASCADE;

