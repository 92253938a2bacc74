-- AlterTable
ALTER TABLE "clients" ADD COLUMN     "connections" TEXT[] NOT NULL DEFAULT ARRAY[]::TEXT[];

-- Clients made before this may be used for every connection, as before. New ones for none, unless they say so.
UPDATE "clients" SET "connections" = '{*}';
