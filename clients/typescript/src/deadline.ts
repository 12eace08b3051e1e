/** By when a call of several attempts must be done. */

import { setMaxListeners } from "node:events";

import { status } from "@grpc/grpc-js";

import { DeadlineExceeded } from "./errors.js";
import type { CallOptions } from "./options.js";

/** One call, of one attempt or several: when it must be done, and what the caller said about it. */
export interface Bounds extends CallOptions {
  readonly deadline: Deadline;
}

// setTimeout takes no more.
const LONGEST_TIMER_MS = 2 ** 31 - 1;

/** A point in time, on a clock that cannot be set back. */
export class Deadline {
  readonly #at: number;

  constructor(timeoutMs: number) {
    this.#at = performance.now() + timeoutMs;
  }

  /** Milliseconds until the deadline; 0 when it has passed. */
  remaining(): number {
    return Math.max(0, this.#at - performance.now());
  }

  /** Sleeps; throws DeadlineExceeded at the deadline when that comes first, and the signal's reason when it is aborted. */
  async sleep(ms: number, signal?: AbortSignal): Promise<void> {
    const remaining = this.remaining();
    await sleep(Math.min(ms, remaining), signal);
    if (ms >= remaining) {
      throw passed();
    }
  }

  /** What `work` gives, unless the deadline or an aborted signal comes first. */
  async limit<T>(work: Promise<T>, signal?: AbortSignal): Promise<T> {
    const ending = this.ending(signal);
    try {
      return await Promise.race([
        work,
        new Promise<never>((_, reject) => {
          ending.signal.addEventListener("abort", () => reject(ending.signal.reason), { once: true });
        }),
      ]);
    } finally {
      ending.release();
    }
  }

  /** A signal that is aborted at the deadline, with the given signal, or by `end`. Release it in the end. */
  ending(signal?: AbortSignal): Ending {
    signal?.throwIfAborted();
    const controller = new AbortController();
    setMaxListeners(0, controller.signal); // pieces of work that it ends, of which there may be many
    const end = (reason: unknown): void => controller.abort(reason);
    const aborted = (): void => end(signal?.reason);
    signal?.addEventListener("abort", aborted, { once: true });
    const timer = setTimeout(() => end(passed()), Math.min(this.remaining(), LONGEST_TIMER_MS));
    const release = (): void => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", aborted);
    };
    return { signal: controller.signal, end, release };
  }
}

export interface Ending {
  readonly signal: AbortSignal;
  readonly end: (reason: unknown) => void;
  readonly release: () => void;
}

function passed(): DeadlineExceeded {
  return new DeadlineExceeded("The deadline has passed.", status.DEADLINE_EXCEEDED);
}

function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    signal?.throwIfAborted();
    const aborted = (): void => {
      clearTimeout(timer);
      reject(signal?.reason);
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", aborted);
      resolve();
    }, Math.min(ms, LONGEST_TIMER_MS));
    signal?.addEventListener("abort", aborted, { once: true });
  });
}

/** Makes a pause up to 30 % longer, so that clients do not come back together. */
export function spread(ms: number): number {
  return ms * (1 + 0.3 * Math.random());
}
