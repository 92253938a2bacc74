-- CreateTable
CREATE TABLE "request_limits" (
    "key" TEXT NOT NULL,
    "seen_by" TIMESTAMPTZ(3)[],
    "running" TIMESTAMPTZ(3)[],
    "keep_seconds" DOUBLE PRECISION NOT NULL,
    "closed_until" TIMESTAMPTZ(3),
    "asked_at" TIMESTAMPTZ(3) NOT NULL,
    "wait_seconds" DOUBLE PRECISION NOT NULL,

    CONSTRAINT "request_limits_pkey" PRIMARY KEY ("key")
);
