/**
 * Following jobs over as many streams as it takes. A stream ends for reasons that have nothing to do with a job: the
 * gateway is stopping, the stream has been open for long, the connection broke. Since every stream begins with the present
 * state, opening another loses nothing.
 */

import { type ClientReadableStream, type ServiceError, status } from "@grpc/grpc-js";

import { type Bounds, spread } from "./deadline.js";
import { DocPreviewError, Unavailable } from "./errors.js";
import { PreviewJob_State } from "./gen/docpreview/v1/preview_job_pb.js";

const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 10_000;
// After the terminal state nothing but the end of the stream can come.
const END_OF_STREAM_WITHIN_MS = 1000;

/** Whether a job in this state never changes again. */
export function isTerminal(state: PreviewJob_State): boolean {
  return [PreviewJob_State.SUCCESS, PreviewJob_State.FAILED, PreviewJob_State.CANCELLED].includes(state);
}

/** Whether and when a call that the gateway broke off is made again. */
export class Reconnecting {
  readonly #patienceMs: number;
  readonly #bounds: Bounds;
  #pauseMs = FIRST_PAUSE_MS;
  #giveUpAt: number | undefined;
  #everHeard = false;

  constructor(patienceMs: number, bounds: Bounds) {
    this.#patienceMs = patienceMs;
    this.#bounds = bounds;
  }

  /** Takes note that a message came: the gateway is there. */
  heard(): void {
    this.#everHeard = true;
    this.#giveUpAt = undefined;
    this.#pauseMs = FIRST_PAUSE_MS;
  }

  /**
   * Sleeps until the next attempt is due. Throws the error itself when it is not Unavailable, when no gateway has ever
   * answered (a wrong address does not get better), or when none has for longer than the patience.
   */
  async pauseAfter(error: unknown): Promise<void> {
    if (!(error instanceof Unavailable)) {
      throw error;
    }
    this.#everHeard ||= error.reason !== "" || error.retryDelayMs !== undefined;
    this.#giveUpAt ??= performance.now() + this.#patienceMs;
    if (!this.#everHeard || performance.now() >= this.#giveUpAt) {
      throw error;
    }
    const pause = Math.max(error.retryDelayMs ?? 0, this.#pauseMs);
    this.#pauseMs = Math.min(this.#pauseMs * 2, LONGEST_PAUSE_MS);
    await this.#bounds.deadline.sleep(spread(pause), this.#bounds.signal);
  }
}

export interface Patience {
  readonly idleMs: number;
  readonly unreachableMs: number;
}

/** One stream after the other, until no more is wanted. */
export interface Following<M> {
  readonly open: () => Promise<ClientReadableStream<M>>;
  /** Whether everything that can come has come. */
  readonly over: () => boolean;
  /** What a stream that failed is to throw. */
  readonly failed: (error: ServiceError) => unknown;
}

/** Yields the messages of all streams, heartbeats included. */
export async function* followed<M>(
  { open, over, failed }: Following<M>,
  bounds: Bounds,
  patience: Patience,
): AsyncGenerator<M, void, undefined> {
  const reconnecting = new Reconnecting(patience.unreachableMs, bounds);
  const idleMs = (): number => (over() ? END_OF_STREAM_WITHIN_MS : patience.idleMs);
  for (;;) {
    try {
      for await (const message of messages(await open(), idleMs, failed, bounds)) {
        reconnecting.heard();
        yield message;
      }
      if (!over()) {
        throw new Unavailable("The stream ended before the jobs did.", status.UNAVAILABLE);
      }
      return;
    } catch (error) {
      if (over() && error instanceof DocPreviewError) {
        return;
      }
      await reconnecting.pauseAfter(error);
    }
  }
}

/** One stream's messages; throws Unavailable when nothing comes for too long. */
async function* messages<M>(
  stream: ClientReadableStream<M>,
  idleMs: () => number,
  failed: (error: ServiceError) => unknown,
  bounds: Bounds,
): AsyncGenerator<M, void, undefined> {
  const ended = (): void => stream.cancel();
  bounds.signal?.addEventListener("abort", ended, { once: true });
  try {
    const coming = stream[Symbol.asyncIterator]() as AsyncIterator<M>;
    for (;;) {
      const next = await within(idleMs(), coming, stream, failed);
      if (next.done === true) {
        return;
      }
      yield next.value;
    }
  } finally {
    bounds.signal?.removeEventListener("abort", ended);
    stream.cancel();
  }
}

async function within<M>(
  ms: number,
  coming: AsyncIterator<M>,
  stream: ClientReadableStream<M>,
  failed: (error: ServiceError) => unknown,
): Promise<IteratorResult<M>> {
  let silent = false;
  const timer = setTimeout(() => {
    silent = true;
    stream.cancel();
  }, ms);
  try {
    return await coming.next();
  } catch (error) {
    if (silent) {
      throw new Unavailable(`Nothing came from the gateway for ${ms / 1000} seconds.`, status.UNAVAILABLE);
    }
    throw failed(error as ServiceError);
  } finally {
    clearTimeout(timer);
  }
}
