/**
 * Following one job over as many streams as it takes. A stream ends for reasons that have nothing to do with the job: the
 * gateway is stopping, the stream has been open for long, the connection broke. Since every stream begins with the present
 * state, opening another loses nothing.
 */

import { equals } from "@bufbuild/protobuf";
import { type ClientReadableStream, type ServiceError, status } from "@grpc/grpc-js";

import type { Bounds } from "./connection.js";
import { spread } from "./deadline.js";
import { decoded } from "./decoding.js";
import { DocPreviewError, Unavailable } from "./errors.js";
import { type PreviewJob, PreviewJob_State, PreviewJobSchema } from "./gen/docpreview/v1/preview_job_pb.js";
import type { WatchPreviewJobResponse } from "./gen/docpreview/v1/preview_job_service_pb.js";

type Stream = ClientReadableStream<WatchPreviewJobResponse>;

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

/** Yields the present job and then each one that differs from the one before, until its terminal state. */
export async function* followed(
  open: () => Promise<Stream>,
  bounds: Bounds,
  patience: Patience,
): AsyncGenerator<PreviewJob, void, undefined> {
  const reconnecting = new Reconnecting(patience.unreachableMs, bounds);
  let last: PreviewJob | undefined;
  const over = (): boolean => last !== undefined && isTerminal(last.state);
  const idleMs = (): number => (over() ? END_OF_STREAM_WITHIN_MS : patience.idleMs);
  for (;;) {
    try {
      for await (const { job } of messages(await open(), idleMs, bounds)) {
        reconnecting.heard();
        if (job !== undefined && (last === undefined || !equals(PreviewJobSchema, job, last))) {
          last = job;
          yield job;
        }
      }
      if (!over()) {
        throw new Unavailable("The stream ended before the job did.", status.UNAVAILABLE);
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

/** One stream's messages, heartbeats included; throws Unavailable when nothing comes for too long. */
async function* messages(
  stream: Stream,
  idleMs: () => number,
  bounds: Bounds,
): AsyncGenerator<WatchPreviewJobResponse, void, undefined> {
  const ended = (): void => stream.cancel();
  stream.on("error", () => undefined); // its own cancellation, when nobody reads any more
  bounds.signal?.addEventListener("abort", ended, { once: true });
  try {
    const coming = stream[Symbol.asyncIterator]();
    for (;;) {
      const next = await within(idleMs(), coming, stream, bounds);
      if (next.done === true) {
        return;
      }
      yield next.value as WatchPreviewJobResponse;
    }
  } finally {
    bounds.signal?.removeEventListener("abort", ended);
    stream.cancel();
  }
}

async function within(
  ms: number,
  coming: AsyncIterator<unknown>,
  stream: Stream,
  bounds: Bounds,
): Promise<IteratorResult<unknown>> {
  let silent = false;
  const timer = setTimeout(() => {
    silent = true;
    stream.cancel();
  }, ms);
  try {
    return await coming.next();
  } catch (error) {
    bounds.signal?.throwIfAborted();
    if (silent) {
      throw new Unavailable(`Nothing came from the gateway for ${ms / 1000} seconds.`, status.UNAVAILABLE);
    }
    throw decoded(error as ServiceError);
  } finally {
    clearTimeout(timer);
  }
}
