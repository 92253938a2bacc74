-- What a replica says of its encryption keys, and when it stopped in order. A row stays for 30 days: the spool of an instance that is away
-- may hold what only an old key opens.
ALTER TABLE "replicas"
    ADD COLUMN "key_ids" TEXT[] DEFAULT ARRAY[]::TEXT[],
    ADD COLUMN "current_key" TEXT,
    ADD COLUMN "held_key_ids" TEXT[],
    ADD COLUMN "left_at" TIMESTAMPTZ(3);

-- Rotations of the encryption key: how far the newest one is, and who works on it.
CREATE TABLE "rotations" (
    "id" UUID NOT NULL,
    "target_key" TEXT NOT NULL,
    "begun_by" TEXT NOT NULL,
    "begun_at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock_timestamp(),
    "worker" UUID,
    "lease_until" TIMESTAMPTZ(3),
    "pass" INTEGER NOT NULL DEFAULT 1,
    "place" TEXT,
    "after_id" TEXT,
    "seen" INTEGER NOT NULL DEFAULT 0,
    "moved" INTEGER NOT NULL DEFAULT 0,
    "pass_moved" INTEGER NOT NULL DEFAULT 0,
    "waits_for" TEXT,
    "unopened" JSONB NOT NULL DEFAULT '[]',
    "accepts_audit_faults" BOOLEAN NOT NULL DEFAULT false,
    "forgotten" TEXT[] DEFAULT ARRAY[]::TEXT[],
    "finished_at" TIMESTAMPTZ(3),

    CONSTRAINT "rotations_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE INDEX "rotations_begun_at_idx" ON "rotations"("begun_at" DESC);
