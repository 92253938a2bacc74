import { randomUUID } from "node:crypto";
import { describe, expect, it } from "vitest";
import type { Candidate } from "../../../src/store/token-sets.ts";
import type { TokenRow } from "../../../src/store/token-row.ts";
import { freely, ifAbandoned, sealedBytes, sealedGrant, type StoreStage } from "./stage.ts";

const lost = { code: "refresh_outcome_lost", detail: "refused" };

function candidateOf(row: TokenRow, changes: Partial<Candidate> = {}): Candidate {
  const { id: connectionId, authorization, generation: baseGeneration } = row;
  return { attemptId: randomUUID(), connectionId, authorization, baseGeneration, record: sealedBytes(), ...changes };
}

function promotion(generation: number, attemptId: string = randomUUID()) {
  return {
    attemptId,
    generation,
    event: { type: "late_answer_stored" as const, detail: { generation, attempt: attemptId } },
  };
}

function trial({ attemptId }: Candidate) {
  return { candidateId: attemptId, attemptId: randomUUID(), leaseSeconds: 30, ifAbandoned };
}

async function countCandidates(stage: StoreStage, id: string): Promise<number> {
  const [found] = await stage.query<{ count: number }>(
    "SELECT count(*)::int AS count FROM candidates WHERE connection_id = $1::uuid",
    id,
  );
  return found?.count ?? 0;
}

/** Every statement about answers that came late. For each of its guards there is a case that must not match. */
export function lateSets(stage: () => StoreStage): void {
  describe("a late answer", () => {
    it("becomes the newest set of the row as it was read; who had the permit loses it, and the grant lives again", async () => {
      const { row, key } = await stage().permit();
      await stage().rows.endGrant(key, lost);
      await stage().set(row.id, "backoff_until = clock_timestamp() + interval '1 hour'");
      const ended = await stage().row(row.id);
      const given = promotion(2);
      const grant = sealedGrant();
      const promoted = await stage().rows.promoteLate(ended, grant, given);
      expect(promoted).toMatchObject({
        status: "connected",
        generation: 2,
        version: 2,
        authorization: row.authorization,
        accessToken: grant.accessToken,
        attemptId: null,
        lastAttemptId: given.attemptId,
        backoffUntil: null,
        lastErrorCode: null,
      });
      const [event] = await stage().connections.events(row.id, { limit: 1, before: null, patterns: ["%"] });
      expect(event).toMatchObject({ type: "late_answer_stored" as const, detail: { attempt: given.attemptId } });
    });

    it("takes the row from an attempt that stands there, whose own answer is then late in its turn", async () => {
      const { row, key } = await stage().permit();
      expect(await stage().rows.promoteLate(row, sealedGrant(), promotion(2))).toMatchObject({ attemptId: null });
      expect(await stage().rows.commitRefresh(key, sealedGrant(), {})).toBeNull();
    });

    it.each<{ is: string; change: (row: TokenRow) => Partial<TokenRow> }>([
      { is: "at another generation", change: ({ generation }) => ({ generation: generation + 1 }) },
      { is: "of another authorization", change: ({ authorization }) => ({ authorization: authorization + 1 }) },
      { is: "with another permit", change: () => ({ attemptId: randomUUID() }) },
      { is: "without a permit", change: () => ({ attemptId: null }) },
      { is: "of another connection", change: () => ({ id: randomUUID() }) },
    ])("changes nothing of a row that was read $is", async ({ change }) => {
      const { row } = await stage().permit();
      const candidate = candidateOf(row);
      await stage().rows.addCandidate(candidate, {});
      const before = await stage().columns(row.id);
      const given = promotion(2, candidate.attemptId);
      expect(await stage().rows.promoteLate({ ...row, ...change(row) }, sealedGrant(), given)).toBeNull();
      expect([await stage().columns(row.id), await countCandidates(stage(), row.id)]).toEqual([before, 1]);
    });

    it("of a disabled connection shows when it is enabled", async () => {
      const row = await stage().connect();
      await stage().connections.update(row, { disabled: true }, freely);
      expect(await stage().rows.promoteLate(row, sealedGrant(), promotion(2))).toMatchObject({ status: "disabled" });
    });

    it("is not its own candidate any more once it is the newest set", async () => {
      const row = await stage().connect();
      const [own, other] = [candidateOf(row), candidateOf(row)];
      for (const each of [own, other]) await stage().rows.addCandidate(each, {});
      await stage().rows.promoteLate(row, sealedGrant(), promotion(2, own.attemptId));
      expect(await stage().rows.newestCandidate(row.id, row.authorization)).toMatchObject({
        attemptId: other.attemptId,
      });
    });

    it("is known to have been stored by its attempt, for 90 days", async () => {
      const { row, key } = await stage().permit();
      const wasStored = async (of: { connectionId: string; attemptId: string }) =>
        (await stage().rows.readForAnswer(of)).wasStored;
      expect(await wasStored(key)).toBe(false);
      await stage().rows.commitRefresh(key, sealedGrant(), { generation: 2, attempt: key.attemptId });
      const next = { ...key, generation: 2, attemptId: randomUUID() };
      await stage().rows.takePermit({
        ...next,
        leaseSeconds: 30,
        statuses: ["connected"],
        ifAbandoned,
        exclusive: true,
        takeover: null,
      });
      await stage().rows.commitRefresh(next, sealedGrant(), { generation: 3, attempt: next.attemptId });
      expect(await wasStored(key)).toBe(true);
      expect(await wasStored(next)).toBe(true);
      expect(await wasStored({ ...key, attemptId: randomUUID() })).toBe(false);
      const gone = { row: null, wasStored: false };
      expect(await stage().rows.readForAnswer({ ...key, connectionId: randomUUID() })).toEqual(gone);
      expect((await stage().row(row.id)).generation).toBe(3);
      await stage().query(
        "UPDATE stored_answers SET stored_at = clock_timestamp() - interval '91 days' WHERE attempt_id = $1::uuid RETURNING 1 AS done",
        key.attemptId,
      );
      await stage().rows.tidy();
      expect([await wasStored(key), await wasStored(next)]).toEqual([false, true]);
    });
  });

  describe("a candidate", () => {
    it("is kept once, with one line of history, and the newest is tried first", async () => {
      const row = await stage().connect();
      const [older, newer] = [candidateOf(row), candidateOf(row)];
      expect(await stage().rows.newestCandidate(row.id, row.authorization)).toBeNull();
      for (const each of [older, older, newer]) {
        expect(await stage().rows.addCandidate(each, { generation: 2 })).toBe(true);
      }
      expect(await stage().rows.newestCandidate(row.id, row.authorization)).toEqual(newer);
      expect(await countCandidates(stage(), row.id)).toBe(2);
      expect(await stage().events(row.id)).toEqual(["created", "connected", "answer_kept", "answer_kept"]);
    });

    it("is one of ten that are kept for each connection: of more, the newest", async () => {
      const [many, few] = [await stage().connect(), await stage().connect()];
      await stage().rows.addCandidate(candidateOf(few), {});
      const added = Array.from({ length: 12 }, () => candidateOf(many));
      for (const each of added) {
        await stage().query(
          "UPDATE candidates SET created_at = created_at - interval '1 s' WHERE connection_id = $1::uuid RETURNING 1 AS done",
          many.id,
        );
        await stage().rows.addCandidate(each, {});
      }
      expect([await countCandidates(stage(), many.id), await countCandidates(stage(), few.id)]).toEqual([10, 1]);
      const kept = await stage().query<{ id: string }>(
        "SELECT attempt_id::text AS id FROM candidates WHERE connection_id = $1::uuid ORDER BY created_at",
        many.id,
      );
      expect(kept.map(({ id }) => id)).toEqual(added.slice(2).map(({ attemptId }) => attemptId));
    });

    it("is refused where a person has replaced its grant, or the connection is gone", async () => {
      const row = await stage().connect();
      const late = candidateOf(row, { authorization: row.authorization - 1 });
      expect(await stage().rows.addCandidate(late, {})).toBe(false);
      expect(await stage().rows.addCandidate(candidateOf({ ...row, id: randomUUID() }), {})).toBe(false);
      expect(await countCandidates(stage(), row.id)).toBe(0);
    });

    it("is forgotten with its connection, and when a person replaces its grant", async () => {
      const [deleted, replaced] = [await stage().connect(), await stage().connect()];
      for (const row of [deleted, replaced]) await stage().rows.addCandidate(candidateOf(row), {});
      await stage().connections.delete(deleted.id);
      await stage().rows.replaceGrant({ ...replaced, attemptId: randomUUID() }, sealedGrant(), {
        event: { type: "reconnected", detail: {} },
        exclusive: false,
      });
      expect([await countCandidates(stage(), deleted.id), await countCandidates(stage(), replaced.id)]).toEqual([0, 0]);
    });

    it("is tried under a permit of its own: its set is the newest one, and it is no candidate any more", async () => {
      const { row, key } = await stage().permit();
      await stage().set(row.id, "attempt_replays = 3, attempt_started_at = attempt_started_at - interval '1 hour'");
      const candidate = candidateOf(row);
      await stage().rows.addCandidate(candidate, {});
      const [given, grant] = [trial(candidate), sealedGrant()];
      const tried = await stage().rows.tryCandidate(key, grant, given);
      expect(tried).toMatchObject({
        generation: 2,
        attemptId: given.attemptId,
        attemptReplays: 0,
        attemptOutcome: null,
        refreshToken: grant.refreshToken,
        status: "connected",
      });
      // The version is higher than all versions that attempts of the generation before may have handed out.
      expect(tried?.version).toBe(row.version + 4);
      expect((tried?.leaseUntil?.getTime() ?? 0) - (tried?.attemptStartedAt?.getTime() ?? 0)).toBe(30_000);
      expect(await countCandidates(stage(), row.id)).toBe(0);
      expect(await stage().events(row.id)).toEqual(["created", "connected", "answer_kept", "candidate_tried"]);
      expect(await stage().rows.commitRefresh(key, sealedGrant(), {})).toBeNull();
    });

    it("is tried once, by who holds the permit of the row's own generation", async () => {
      const { row, key } = await stage().permit();
      const candidate = candidateOf(row);
      await stage().rows.addCandidate(candidate, {});
      const before = await stage().columns(row.id);
      for (const other of [{ attemptId: randomUUID() }, { generation: 2 }, { connectionId: randomUUID() }]) {
        expect(await stage().rows.tryCandidate({ ...key, ...other }, sealedGrant(), trial(candidate))).toBeNull();
      }
      expect(await stage().rows.tryCandidate(key, sealedGrant(), trial(candidateOf(row)))).toBeNull();
      expect([await stage().columns(row.id), await countCandidates(stage(), row.id)]).toEqual([before, 1]);
      const trials = Array.from({ length: 10 }, () => stage().rows.tryCandidate(key, sealedGrant(), trial(candidate)));
      expect((await Promise.all(trials)).filter((each) => each !== null)).toHaveLength(1);
    });

    it("that has been tried is known to have been stored: drained once more, it is not tried again", async () => {
      const { row, key } = await stage().permit();
      const candidate = candidateOf(row);
      await stage().rows.addCandidate(candidate, {});
      await stage().rows.tryCandidate(key, sealedGrant(), trial(candidate));
      expect(await stage().rows.readForAnswer(candidate)).toMatchObject({ row: { id: row.id }, wasStored: true });
    });
  });
}
