-- CreateTable
CREATE TABLE "encryption_keys" (
    "id" TEXT NOT NULL,
    "check_sealed" BYTEA NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "encryption_keys_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "clients" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "provider" TEXT NOT NULL,
    "client_id" TEXT NOT NULL,
    "secret_revision" INTEGER NOT NULL DEFAULT 0,
    "secret_sealed" BYTEA,
    "previous_secret_sealed" BYTEA,
    "scopes" TEXT[],
    "inputs" JSONB NOT NULL DEFAULT '{}',
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "clients_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "connections" (
    "id" UUID NOT NULL,
    "name" TEXT NOT NULL,
    "provider" TEXT NOT NULL,
    "client_ref" UUID,
    "grant_type" TEXT NOT NULL,
    "status" TEXT NOT NULL DEFAULT 'pending',
    "enabled_status" TEXT NOT NULL DEFAULT 'pending',
    "scopes" TEXT[],
    "inputs" JSONB NOT NULL DEFAULT '{}',
    "labels" JSONB NOT NULL DEFAULT '{}',
    "account" TEXT,
    "captured" JSONB NOT NULL DEFAULT '{}',
    "credentials_revision" INTEGER NOT NULL DEFAULT 0,
    "credentials_sealed" BYTEA,
    "generation" INTEGER NOT NULL DEFAULT 0,
    "authorization_seq" INTEGER NOT NULL DEFAULT 0,
    "version" INTEGER NOT NULL DEFAULT 0,
    "access_token_sealed" BYTEA,
    "refresh_token_sealed" BYTEA,
    "refresh_fingerprint" BYTEA,
    "token_type" TEXT,
    "granted_scopes" TEXT[],
    "issued_at" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3),
    "refresh_token_expires_at" TIMESTAMPTZ(3),
    "authorized_at" TIMESTAMPTZ(3),
    "attempt_id" UUID,
    "attempt_started_at" TIMESTAMPTZ(3),
    "lease_until" TIMESTAMPTZ(3),
    "attempt_outcome" TEXT,
    "attempt_answer_sealed" BYTEA,
    "last_attempt_id" UUID,
    "backoff_until" TIMESTAMPTZ(3),
    "consecutive_failures" INTEGER NOT NULL DEFAULT 0,
    "last_error_code" TEXT,
    "last_error_at" TIMESTAMPTZ(3),
    "last_error_detail" TEXT,
    "last_refreshed_at" TIMESTAMPTZ(3),
    "next_refresh_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,
    "updated_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "connections_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "tombstones" (
    "name" TEXT NOT NULL,
    "connection_id" UUID NOT NULL,
    "version" INTEGER NOT NULL,
    "authorization_seq" INTEGER NOT NULL,
    "provider" TEXT NOT NULL,
    "client_ref" UUID,
    "inputs" JSONB NOT NULL DEFAULT '{}',
    "captured" JSONB NOT NULL DEFAULT '{}',
    "deleted_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "tombstones_pkey" PRIMARY KEY ("name")
);

-- CreateTable
CREATE TABLE "connection_events" (
    "id" BIGSERIAL NOT NULL,
    "connection_id" UUID NOT NULL,
    "at" TIMESTAMPTZ(3) NOT NULL DEFAULT clock_timestamp(),
    "type" TEXT NOT NULL,
    "detail" JSONB NOT NULL DEFAULT '{}',

    CONSTRAINT "connection_events_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "consent_links" (
    "id" TEXT NOT NULL,
    "connection_id" UUID NOT NULL,
    "secret_hash" BYTEA NOT NULL,
    "return_to" TEXT,
    "manual" BOOLEAN NOT NULL DEFAULT false,
    "created_by" TEXT NOT NULL,
    "claimed_by" BYTEA,
    "used_at" TIMESTAMPTZ(3),
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "consent_links_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "authorization_requests" (
    "id" UUID NOT NULL,
    "state_hash" BYTEA NOT NULL,
    "connection_id" UUID NOT NULL,
    "link_id" TEXT NOT NULL,
    "browser_hash" BYTEA NOT NULL,
    "verifier_sealed" BYTEA,
    "redirect_uri" TEXT,
    "expires_at" TIMESTAMPTZ(3) NOT NULL,
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "authorization_requests_pkey" PRIMARY KEY ("id")
);

-- CreateTable
CREATE TABLE "api_keys" (
    "id" TEXT NOT NULL,
    "name" TEXT NOT NULL,
    "secret_hash" BYTEA NOT NULL,
    "abilities" TEXT[],
    "connections" TEXT[],
    "expires_at" TIMESTAMPTZ(3),
    "revoked_at" TIMESTAMPTZ(3),
    "created_at" TIMESTAMPTZ(3) NOT NULL DEFAULT CURRENT_TIMESTAMP,

    CONSTRAINT "api_keys_pkey" PRIMARY KEY ("id")
);

-- CreateIndex
CREATE UNIQUE INDEX "clients_name_key" ON "clients"("name");

-- CreateIndex
CREATE INDEX "clients_provider_idx" ON "clients"("provider");

-- CreateIndex
CREATE UNIQUE INDEX "connections_name_key" ON "connections"("name");

-- CreateIndex
CREATE INDEX "connections_created_at_id_idx" ON "connections"("created_at" DESC, "id");

-- CreateIndex
CREATE INDEX "connections_client_ref_refresh_fingerprint_idx" ON "connections"("client_ref", "refresh_fingerprint");

-- CreateIndex
CREATE INDEX "connections_labels_idx" ON "connections" USING GIN ("labels");

-- CreateIndex
CREATE INDEX "connection_events_connection_id_id_idx" ON "connection_events"("connection_id", "id" DESC);

-- CreateIndex
CREATE INDEX "consent_links_connection_id_idx" ON "consent_links"("connection_id");

-- CreateIndex
CREATE UNIQUE INDEX "authorization_requests_state_hash_key" ON "authorization_requests"("state_hash");

-- CreateIndex
CREATE INDEX "authorization_requests_expires_at_idx" ON "authorization_requests"("expires_at");

-- CreateIndex
CREATE INDEX "api_keys_created_at_id_idx" ON "api_keys"("created_at" DESC, "id");

-- AddForeignKey
ALTER TABLE "connections" ADD CONSTRAINT "connections_client_ref_fkey" FOREIGN KEY ("client_ref") REFERENCES "clients"("id") ON DELETE RESTRICT ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "connection_events" ADD CONSTRAINT "connection_events_connection_id_fkey" FOREIGN KEY ("connection_id") REFERENCES "connections"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "consent_links" ADD CONSTRAINT "consent_links_connection_id_fkey" FOREIGN KEY ("connection_id") REFERENCES "connections"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "authorization_requests" ADD CONSTRAINT "authorization_requests_connection_id_fkey" FOREIGN KEY ("connection_id") REFERENCES "connections"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- AddForeignKey
ALTER TABLE "authorization_requests" ADD CONSTRAINT "authorization_requests_link_id_fkey" FOREIGN KEY ("link_id") REFERENCES "consent_links"("id") ON DELETE CASCADE ON UPDATE CASCADE;

-- What Prisma's schema cannot say.
ALTER TABLE "connections" ADD CONSTRAINT "connections_status_check"
  CHECK ("status" IN ('pending', 'connected', 'needs_reauthorization', 'disabled')
    AND "enabled_status" IN ('pending', 'connected', 'needs_reauthorization'));
ALTER TABLE "connections" ADD CONSTRAINT "connections_permit_check"
  CHECK (("attempt_id" IS NULL) = ("lease_until" IS NULL) AND ("attempt_id" IS NULL) = ("attempt_started_at" IS NULL));
