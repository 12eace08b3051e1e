/** What to do about an error: from the `(retry)` option of each ErrorReason in the contract, else from the code. */

import { getOption } from "@bufbuild/protobuf";
import { status } from "@grpc/grpc-js";

import { ErrorReasonSchema, Retry, retry } from "./gen/docpreview/v1/error_reason_pb.js";

/**
 * `now`: the same call may succeed within the time that a program waits: repeat it after `retryDelayMs`, a create with the
 * same `requestId`. `later`: when a period or a person has made room. `never`: something else must change first.
 */
export type RetryAdvice = "now" | "later" | "never";

const ADVICE: Readonly<Record<Retry, RetryAdvice>> = {
  [Retry.UNSPECIFIED]: "never",
  [Retry.NEVER]: "never",
  [Retry.NOW]: "now",
  [Retry.LATER]: "later",
};

const BY_REASON: ReadonlyMap<string, RetryAdvice> = new Map(
  ErrorReasonSchema.values.map((value) => [value.localName, ADVICE[getOption(value, retry)]]),
);

const REPEATABLE_CODES: ReadonlySet<status> = new Set([
  status.UNAVAILABLE,
  status.CANCELLED,
  status.DEADLINE_EXCEEDED,
]);

/** What to do about an error of this reason, or of this code when `reason` is empty. */
export function adviceOn(reason: string, code: status): RetryAdvice {
  if (reason !== "") {
    return BY_REASON.get(reason) ?? "never";
  }
  return REPEATABLE_CODES.has(code) ? "now" : "never";
}
