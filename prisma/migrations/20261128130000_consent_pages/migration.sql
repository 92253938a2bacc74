-- What the person is asked for, in the words of whoever made the link.
ALTER TABLE "consent_links" ADD COLUMN "purpose" TEXT;

-- States and copied codes that have come back, for as long as their browser may come back with them once more.
CREATE TABLE "consent_attempts" (
    "attempt_hash" BYTEA NOT NULL,
    "browser_hash" BYTEA NOT NULL,
    "link_id" TEXT NOT NULL,
    "ticket" TEXT,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,

    CONSTRAINT "consent_attempts_pkey" PRIMARY KEY ("attempt_hash")
);

-- CreateIndex
CREATE INDEX "consent_attempts_expires_at_idx" ON "consent_attempts"("expires_at");

-- CreateIndex
CREATE INDEX "consent_attempts_link_id_idx" ON "consent_attempts"("link_id");

-- AddForeignKey
ALTER TABLE "consent_attempts" ADD CONSTRAINT "consent_attempts_link_id_fkey" FOREIGN KEY ("link_id") REFERENCES "consent_links"("id") ON DELETE CASCADE ON UPDATE CASCADE;
