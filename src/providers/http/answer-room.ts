/** The largest answer that is read, as sent and inflated: 1 MiB. */
export const maxBodyBytes = 1024 * 1024;

/** This much of each answer is always read. Hardly any answer is longer. */
export const freeBytes = 64 * 1024;
/** What all answers of one process may hold together beyond their first 64 KiB each. */
const roomBytes = 64 * 1024 * 1024;
const mostOfOne = maxBodyBytes - freeBytes;

/**
 * Limits the memory for long answers. A body without room waits: its connection is not read until another answer is finished. It is never
 * dropped, since the refresh token that it answers has been spent.
 *
 * There is no deadlock: room is given only while enough is left to finish the answer that has the most room. When it ends, it frees enough for
 * any other.
 */
export class AnswerRoom {
  #left: number;
  readonly #shares = new Set<AnswerShare>();

  constructor(bytes = roomBytes) {
    this.#left = bytes;
  }

  /** The room of one answer. Call `release` in any case. */
  open(): AnswerShare {
    const share: AnswerShare = new AnswerShare({
      take: (bytes) => this.#take(share, bytes),
      release: () => this.#release(share),
    });
    this.#shares.add(share);
    return share;
  }

  #take(share: AnswerShare, bytes: number): boolean {
    const left = this.#left - (bytes - share.bytes);
    const most = Math.max(bytes, ...Array.from(this.#shares, (other) => other.bytes));
    if (left < mostOfOne - most) return false;
    this.#left = left;
    return true;
  }

  #release(share: AnswerShare): void {
    if (!this.#shares.delete(share)) return;
    this.#left += share.bytes;
    // The answer with the most room needs the least, so it ends first.
    for (const waiting of [...this.#shares].sort((a, b) => b.bytes - a.bytes)) waiting.tryAgain();
  }
}

type Room = { take: (bytes: number) => boolean; release: () => void };

export class AnswerShare {
  /** Beyond the first 64 KiB. */
  bytes = 0;
  readonly #room: Room;
  #waiting: { bytes: number; onRoom: () => void } | null = null;

  constructor(room: Room) {
    this.#room = room;
  }

  /** Asks for room for the first `size` bytes of the answer. False: there is none yet; `onRoom` is called when there is. */
  grow(size: number, onRoom: () => void): boolean {
    const bytes = Math.min(Math.max(size - freeBytes, 0), mostOfOne);
    if (bytes === 0) return true;
    this.#waiting = { bytes, onRoom };
    return this.#takeRoom();
  }

  tryAgain(): void {
    const onRoom = this.#waiting?.onRoom;
    if (onRoom !== undefined && this.#takeRoom()) queueMicrotask(onRoom);
  }

  release(): void {
    this.#waiting = null;
    this.#room.release();
  }

  #takeRoom(): boolean {
    if (this.#waiting === null || !this.#room.take(this.#waiting.bytes)) return false;
    this.bytes = this.#waiting.bytes;
    this.#waiting = null;
    return true;
  }
}
