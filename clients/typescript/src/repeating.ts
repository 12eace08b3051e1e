/** Calls that are made again within their deadline. */

import { status } from "@grpc/grpc-js";

import { type Bounds, spread } from "./deadline.js";
import { DocPreviewError, OutcomeUnknown } from "./errors.js";

const FIRST_PAUSE_MS = 200;
const LONGEST_PAUSE_MS = 5000;

/**
 * Makes attempts until the deadline, never earlier than the gateway asked for: when the next one would be after the
 * deadline, the error is thrown immediately. Throws OutcomeUnknown when one of the attempts may have made a job and no
 * later one resolved it.
 */
export async function repeated<T>(
  attempt: () => Promise<T>,
  bounds: Bounds,
  again: (error: DocPreviewError) => boolean,
): Promise<T> {
  let unknown: OutcomeUnknown | undefined;
  for (let pauseMs = FIRST_PAUSE_MS; ; pauseMs = Math.min(2 * pauseMs, LONGEST_PAUSE_MS)) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof DocPreviewError) || !again(error)) {
        throw error;
      }
      unknown = error instanceof OutcomeUnknown ? error : unknown;
      const pause = spread(Math.max(error.retryDelayMs ?? 0, pauseMs));
      if (pause >= bounds.deadline.remaining()) {
        throw unknown ?? error;
      }
      await bounds.deadline.sleep(pause, bounds.signal);
    }
  }
}

/** Whether a create with a `requestId` is made again: all attempts together make one job. */
export function createAgain(error: DocPreviewError): boolean {
  return error.retry === "now" || (error instanceof OutcomeUnknown && error.reason === "");
}

/** Whether a stopping gateway refused the call. gRPC repeats that too, but gives up before another gateway may be there. */
export function refusedByStopping(error: DocPreviewError): boolean {
  return error.reason === "SHUTTING_DOWN" || error.code === status.CANCELLED;
}
