/** Creates that carry a `requestId` are made again until their outcome is known: all attempts together make one job. */

import type { Bounds } from "./connection.js";
import { spread } from "./deadline.js";
import { OutcomeUnknown, Unavailable } from "./errors.js";

const ATTEMPTS = 5;
const FIRST_PAUSE_MS = 200;
/** The reason of an outcome that no later attempt can resolve. */
const AMBIGUOUS = "CREATE_OUTCOME_AMBIGUOUS";

/**
 * Makes up to five attempts within the deadline, never earlier than the gateway asked for: when that is after the
 * deadline, its error is thrown immediately. Throws OutcomeUnknown when one of the attempts may have made the job and
 * no later one resolved it, Unavailable when none was accepted.
 */
export async function repeated<T>(attempt: () => Promise<T>, bounds: Bounds): Promise<T> {
  let unknown: OutcomeUnknown | undefined;
  for (let number = 1; ; number++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Unavailable || error instanceof OutcomeUnknown) || error.reason === AMBIGUOUS) {
        throw error;
      }
      unknown = error instanceof OutcomeUnknown ? error : unknown;
      const pause = spread(Math.max(error.retryDelayMs ?? 0, FIRST_PAUSE_MS * 2 ** (number - 1)));
      if (number === ATTEMPTS || pause >= bounds.deadline.remaining()) {
        throw unknown ?? error;
      }
      await bounds.deadline.sleep(pause, bounds.signal);
    }
  }
}
