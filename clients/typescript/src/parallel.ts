/** Several pieces of work at the same time. */

import type { Bounds } from "./deadline.js";

/**
 * Works on all items, at most `atOnce` at the same time. The first failure, the deadline or the caller's signal ends the
 * others by the signal that each is given; comes back when all have ended.
 */
export async function inParallel<T>(
  items: Iterable<T>,
  atOnce: number,
  bounds: Bounds,
  work: (item: T, signal: AbortSignal) => Promise<void>,
): Promise<void> {
  const { signal, end, release } = bounds.deadline.ending(bounds.signal);
  const left = items[Symbol.iterator]();
  const worker = async (): Promise<void> => {
    for (let next = left.next(); next.done !== true && !signal.aborted; next = left.next()) {
      await work(next.value, signal);
    }
  };
  try {
    await Promise.all(Array.from({ length: atOnce }, () => worker().catch(end)));
  } finally {
    release();
  }
  signal.throwIfAborted();
}
