-- Consents on their way live ten minutes, and what is now sealed with them cannot be made up for: whoever was on the way starts again.
DELETE FROM "authorization_requests";

-- AlterTable
ALTER TABLE "authorization_requests" DROP COLUMN "redirect_uri",
DROP COLUMN "verifier_sealed",
ADD COLUMN     "request_sealed" BYTEA NOT NULL;

-- AlterTable
ALTER TABLE "clients" ADD COLUMN     "own_redirect_uri" BOOLEAN NOT NULL DEFAULT false;

-- AlterTable
ALTER TABLE "connections" ADD COLUMN     "redirect_uri" TEXT;
