-- The processes that serve tokens from memory: a name is used again only once each of them has heard that its connection is gone.
CREATE TABLE "replicas" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "heard_at" TIMESTAMPTZ(3) NOT NULL,
    "seen_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "replicas_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "tombstones_deleted_at_idx" ON "tombstones"("deleted_at");

-- CreateIndex
CREATE INDEX "api_keys_revoked_at_idx" ON "api_keys"("revoked_at");
