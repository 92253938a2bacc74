-- Before each send it is looked whether another connection holds the same refresh token. The fingerprint covers the client.
DROP INDEX "connections_client_ref_refresh_fingerprint_idx";

-- CreateIndex
CREATE INDEX "connections_client_ref_idx" ON "connections"("client_ref");

-- CreateIndex
CREATE INDEX "connections_refresh_fingerprint_idx" ON "connections"("refresh_fingerprint");
