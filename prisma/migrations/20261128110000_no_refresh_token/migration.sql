-- Since when a connection lacks a refresh token that it needs, or has one that is kept and has not worked since.
ALTER TABLE "connections" ADD COLUMN "no_refresh_token_since" TIMESTAMPTZ(3);
-- The client id that the grant was given to: PATCH may change the client's own.
ALTER TABLE "connections" ADD COLUMN "authorized_client_id" TEXT;
-- Since when scopes that are asked for have not been granted.
ALTER TABLE "connections" ADD COLUMN "missing_scopes_since" TIMESTAMPTZ(3);
-- When "gone_back_from" was found out.
ALTER TABLE "connections" ADD COLUMN "gone_back_at" TIMESTAMPTZ(3);

UPDATE "connections" SET "no_refresh_token_since" = COALESCE("issued_at", "updated_at")
  WHERE "generation" > 0 AND "refresh_token_sealed" IS NULL AND "expires_at" IS NOT NULL
    AND "enabled_status" = 'connected' AND "grant_type" NOT IN ('client_credentials', 'token_exchange')
    AND NOT ("grant_type" = 'password' AND "credentials_sealed" IS NOT NULL);
UPDATE "connections" SET "missing_scopes_since" = COALESCE("authorized_at", "updated_at")
  WHERE "generation" > 0 AND NOT ("scopes" <@ "granted_scopes");
UPDATE "connections" SET "gone_back_at" = "updated_at" WHERE "gone_back_from" IS NOT NULL;
