/** A point in time by which a call of several attempts must be done, on a clock that cannot be set back. */

import { status } from "@grpc/grpc-js";

import { DeadlineExceeded } from "./errors.js";

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
      throw new DeadlineExceeded("The deadline has passed.", status.DEADLINE_EXCEEDED);
    }
  }
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
    }, ms);
    signal?.addEventListener("abort", aborted, { once: true });
  });
}

/** Makes a pause up to 30 % longer, so that clients do not come back together. */
export function spread(ms: number): number {
  return ms * (1 + 0.3 * Math.random());
}
