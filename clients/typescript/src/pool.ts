/**
 * Channels for calls that stay open: watches and waits. The gateway admits 100 streams per connection; more would queue in
 * front of it, and with them every other call of the connection.
 */

import type { Client } from "@grpc/grpc-js";

const STREAMS_PER_CHANNEL = 90;

interface Entry {
  readonly channel: Client;
  streams: number;
  idle?: NodeJS.Timeout;
}

/** A place for one stream. Give it back when the stream has ended; giving it back twice does nothing. */
export interface Place {
  readonly channel: Client;
  readonly giveBack: () => void;
}

export class StreamPool {
  readonly #open: () => Client;
  readonly #idleMs: number;
  readonly #entries = new Set<Entry>();

  /** Channels that have had no stream for `idleMs` are closed. */
  constructor(open: () => Client, idleMs = 30_000) {
    this.#open = open;
    this.#idleMs = idleMs;
  }

  /** Channels that are open. */
  get size(): number {
    return this.#entries.size;
  }

  /** A place in the first channel that has one, in a new one when all are full. */
  take(): Place {
    let entry = [...this.#entries].find(({ streams }) => streams < STREAMS_PER_CHANNEL);
    if (entry === undefined) {
      entry = { channel: this.#open(), streams: 0 };
      this.#entries.add(entry);
    }
    entry.streams++;
    clearTimeout(entry.idle);
    const taken = entry;
    let held = true;
    return {
      channel: taken.channel,
      giveBack: () => {
        if (held) {
          held = false;
          this.#left(taken);
        }
      },
    };
  }

  close(): void {
    this.#entries.forEach((entry) => this.#drop(entry));
  }

  #left(entry: Entry): void {
    entry.streams--;
    if (entry.streams === 0 && this.#entries.has(entry)) {
      entry.idle = setTimeout(() => this.#drop(entry), this.#idleMs).unref();
    }
  }

  #drop(entry: Entry): void {
    clearTimeout(entry.idle);
    this.#entries.delete(entry);
    entry.channel.close();
  }
}
