import type { Socket } from "node:net";
import { Duplex } from "node:stream";

/** What interim answers may take together. Nothing of them is kept, so this bounds the work alone: some 600,000 of the shortest. */
export const mostInterimBytes = 16 * 1024 * 1024;

/** `HTTP/1.1 100` and one character more: so much is needed to tell an interim answer from the final one. */
const startLength = 13;

/** The server did what no request asked it to do. `code` says what. */
class UnaskedError extends Error {
  readonly code: string;
  constructor(code: string) {
    super(code);
    this.code = code;
  }
}

/**
 * A connection that carries one request, without the interim answers (1xx) before its answer. A client must be able to take any number of
 * them, asked for or not (RFC 9110, section 15.2). undici does not: it ends the connection at a 100 that it has not asked for, and the
 * token in the answer behind it is lost. So they are taken out below its parser. Everything from the final answer on passes
 * untouched. A 101 nobody has asked for ends the connection: what follows it is not HTTP any more.
 */
export class InterimFilter extends Duplex {
  readonly #socket: Socket;
  /** `start`: a status line is next. `interim`: the head of an interim answer, until its empty line. `final`: the answer. */
  #state: "start" | "interim" | "final" = "start";
  /** The last bytes that do not yet say what they are: 12 of a status line at most, or 2 of the end of a head. */
  #kept = Buffer.alloc(0);
  #interimBytes = 0;
  #hasEnded = false;

  constructor(socket: Socket) {
    super();
    this.#socket = socket;
    socket.on("data", (chunk: Buffer) => this.#take(chunk));
    socket.on("end", () => {
      this.#hasEnded = true;
      if (this.#kept.length > 0) this.push(this.#kept); // less than a status line: undici says what is wrong with it
      this.push(null);
    });
    socket.on("error", (error) => this.destroy(error));
    // After an end there may be bytes that undici has not read yet, because it waits. They are not thrown away.
    socket.on("close", () => void (this.#hasEnded || this.destroy()));
  }

  override _read(): void {
    this.#socket.resume();
  }

  override _write(chunk: Buffer, _encoding: string, done: (error?: Error | null) => void): void {
    this.#socket.write(chunk, done);
  }

  /** Head and body of a request go out as one piece. */
  override _writev(parts: { chunk: Buffer }[], done: (error?: Error | null) => void): void {
    this.#socket.write(Buffer.concat(parts.map(({ chunk }) => chunk)), done);
  }

  override _final(done: () => void): void {
    this.#socket.end(done);
  }

  override _destroy(error: Error | null, done: (error?: Error | null) => void): void {
    this.#socket.destroy();
    done(error);
  }

  #take(chunk: Buffer): void {
    const final = this.#state === "final" ? chunk : this.#withoutInterim(Buffer.concat([this.#kept, chunk]));
    if (final !== null && !this.push(final)) this.#socket.pause();
  }

  /** What of these bytes belongs to the final answer; null: nothing. */
  #withoutInterim(bytes: Buffer): Buffer | null {
    const text = bytes.toString("latin1");
    let at = 0;
    for (;;) {
      if (this.#state === "interim") {
        const end = findEmptyLine(text, at);
        this.#interimBytes += (end ?? text.length) - at;
        if (this.#interimBytes > mostInterimBytes) return this.#refuse("INTERIM_FLOOD");
        if (end === null) return this.#keep(bytes.subarray(Math.max(at, text.length - 2)));
        at = end;
        this.#state = "start";
      }
      if (text.length - at < startLength) return this.#keep(bytes.subarray(at));
      const [, status] = /^HTTP\/1\.[01] (1\d\d)[ \r\n]/.exec(text.slice(at, at + startLength)) ?? [];
      if (status === "101") return this.#refuse("UNASKED_UPGRADE");
      this.#state = status === undefined ? "final" : "interim";
      if (this.#state === "final") return bytes.subarray(at);
    }
  }

  #keep(bytes: Buffer): null {
    if (this.#state === "interim") this.#interimBytes -= bytes.length; // they are counted when they come up again
    this.#kept = Buffer.from(bytes);
    return null;
  }

  #refuse(code: string): null {
    this.destroy(new UnaskedError(code));
    return null;
  }
}

/** Where the text goes on behind the next empty line; null: there is none yet. A bare LF ends a line, too (RFC 9112, section 2.2). */
function findEmptyLine(text: string, from: number): number | null {
  const emptyLine = /\n\r?\n/g;
  emptyLine.lastIndex = from;
  return emptyLine.test(text) ? emptyLine.lastIndex : null;
}
