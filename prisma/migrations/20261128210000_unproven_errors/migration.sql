-- Errors that do not say whose they are end nothing, and stand in the history once for each request.
ALTER TABLE "authorization_requests" ADD COLUMN "error_noted" BOOLEAN NOT NULL DEFAULT false;
