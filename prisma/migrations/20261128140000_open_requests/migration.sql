-- The open requests of a link are counted before another is stored.
CREATE INDEX "authorization_requests_link_id_idx" ON "authorization_requests"("link_id");
