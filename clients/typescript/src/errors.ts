/**
 * What can go wrong with a call, as one tree of errors, divided by what a caller can do about it. Everything that the
 * methods of DocPreviewClient throw because of a call is a DocPreviewError. An aborted signal throws its own reason.
 */

import type { status } from "@grpc/grpc-js";

/** A bad field of a request: its path, and what to do about it. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** What an error says beside code and message; whatever is not known is empty. */
export interface ErrorFacts {
  readonly reason: string;
  readonly retryDelayMs: number | undefined;
  readonly violations: readonly Violation[];
  readonly metadata: Readonly<Record<string, string>>;
  readonly requestId: string;
}

/** A call that failed. */
export class DocPreviewError extends Error {
  /** The class's name, also when the code is minified. */
  override readonly name: string = "DocPreviewError";
  /** gRPC's status code. */
  readonly code: status;
  /** Name of an `ErrorReason`, such as `JOB_NOT_FOUND`. Empty when the error does not come from the gateway itself. */
  readonly reason: string;
  /** Milliseconds to wait before the call is repeated; undefined when the gateway does not say. */
  readonly retryDelayMs: number | undefined;
  /** Every bad field of the request. */
  readonly violations: readonly Violation[];
  /** The metadata of the error's `google.rpc.ErrorInfo`, for example `upstream_request_id`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The gateway's id of the call. Empty when no gateway answered. */
  readonly requestId: string;

  constructor(message: string, code: status, facts?: Partial<ErrorFacts>, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    this.reason = facts?.reason ?? "";
    this.retryDelayMs = facts?.retryDelayMs;
    this.violations = facts?.violations ?? [];
    this.metadata = facts?.metadata ?? {};
    this.requestId = facts?.requestId ?? "";
  }
}

/** Change the request: `violations` names every bad field. */
export class InvalidRequest extends DocPreviewError {
  override readonly name = "InvalidRequest";
}

/** There is no such job, document, bucket or queue (any more). */
export class NotFound extends DocPreviewError {
  override readonly name = "NotFound";
}

/** Bring a valid token or client certificate. */
export class Unauthenticated extends DocPreviewError {
  override readonly name = "Unauthenticated";
}

/** Ask the operators of the gateway for the permission. */
export class PermissionDenied extends DocPreviewError {
  override readonly name = "PermissionDenied";
}

/** Put the bucket or the cloud account in order, then call again. */
export class FailedPrecondition extends DocPreviewError {
  override readonly name = "FailedPrecondition";
}

/** The same call can succeed later: after `retryDelayMs`, when that is known. */
export abstract class TransientError extends DocPreviewError {}

/** Too many calls, or a quota or budget is used up. Nothing was accepted. */
export class Throttled extends TransientError {
  override readonly name: string = "Throttled";
}

/**
 * The caller's page budget of this day or month (UTC) is used up, or too small for the job. With the reason
 * `PAGE_BUDGET_TOO_SMALL` the job never fits: select fewer pages, or ask for a larger budget.
 */
export class BudgetExhausted extends Throttled {
  override readonly name = "BudgetExhausted";
}

/** Gateway or cloud cannot be reached, or the gateway is stopping. A create was not accepted. */
export class Unavailable extends TransientError {
  override readonly name = "Unavailable";
}

/** The deadline of the call has passed. */
export class DeadlineExceeded extends TransientError {
  override readonly name = "DeadlineExceeded";
}

/**
 * A create was sent and its answer is lost: the job may or may not exist. With a `requestId` repeat it; without one list
 * the jobs before creating again, since a second create may be billed. With the reason `CREATE_OUTCOME_AMBIGUOUS`
 * repeating does not help: only a new `requestId` makes a new job.
 */
export class OutcomeUnknown extends DocPreviewError {
  override readonly name = "OutcomeUnknown";
}

/** Something unexpected: report it with `requestId` to the operators of the gateway. */
export class InternalError extends DocPreviewError {
  override readonly name = "InternalError";
}
