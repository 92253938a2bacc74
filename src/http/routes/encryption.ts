import { Type } from "typebox";
import type { EncryptionService } from "../../encryption/service.ts";
import { encryptionSchema, rotationSchema } from "../admin-answers.ts";
import { audited, noteInAudit } from "../audit.ts";
import { principalOf } from "../auth.ts";
import { type ApiScope, requestBody } from "../schemas.ts";
import { viewEncryption, viewRotation } from "../views.ts";

export type EncryptionRoutesOptions = { encryption: EncryptionService };

const tags = ["encryption"];

const rotate = requestBody(
  "Rotate",
  { description: "What to give up for it", example: { abandon_spool: [] } },
  {
    abandon_spool: Type.Optional(
      Type.Array(Type.String({ minLength: 1, maxLength: 300 }), {
        maxItems: 100,
        uniqueItems: true,
        description:
          "Instances, by name or id, that never come back: what may wait in their spool folders is given up, and they keep no key in use",
      }),
    ),
    accept_audit_faults: Type.Optional(
      Type.Boolean({
        description:
          "Give up keys, too, that alone prove entries of the audit behind a fault of their chain; without them these entries are unproven",
      }),
    ),
  },
);

/** `/encryption`: which encryption keys are in use, and the rotation to another one. */
export async function encryptionRoutes(app: ApiScope, { encryption }: EncryptionRoutesOptions): Promise<void> {
  const status = {
    operationId: "getEncryption",
    summary: "Which encryption keys are in use, and which are free",
    description: "It counts all sealed values and signed rows, so it takes a while in a large database.",
    tags,
    response: { 200: encryptionSchema },
  };
  app.get("/encryption", { schema: status }, async (request) =>
    viewEncryption(await encryption.status(principalOf(request))),
  );

  const progress = {
    operationId: "getRotation",
    summary: "How far the newest rotation is",
    description: "It counts nothing, so that it may be asked for often.",
    tags,
    problems: ["not_found"] as const,
    response: { 200: rotationSchema },
  };
  app.get("/encryption/rotation", { schema: progress }, async (request) =>
    viewRotation(await encryption.rotation(principalOf(request))),
  );

  const begin = {
    operationId: "rotateEncryption",
    summary: "Seal and sign everything anew with the first of ENCRYPTION_KEYS",
    description:
      "Goes on by itself, at any replica, while tokens are read and refreshed; GET /encryption/rotation says how far it is. While one is running, the answer is its progress. Refused while the replicas do not all seal with the same key.",
    tags,
    problems: ["conflict", "not_found"] as const,
    body: rotate,
    response: { 202: rotationSchema },
  };
  app.post(
    "/encryption/rotate",
    { schema: begin, config: audited("encryption.rotate", "encryption") },
    async (request, reply) => {
      const { abandon_spool: abandoned = [], accept_audit_faults: acceptsAuditFaults = false } = request.body;
      const rotation = await encryption.rotate(principalOf(request), abandoned, { acceptsAuditFaults });
      const detail = { abandoned_spools: abandoned, accepted_audit_faults: acceptsAuditFaults };
      noteInAudit(request, { name: rotation.targetKey, detail });
      return await reply.code(202).send(viewRotation(rotation));
    },
  );
}
