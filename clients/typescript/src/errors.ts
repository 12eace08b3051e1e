/**
 * What can go wrong with a call, as one tree of errors, divided by what a caller can do about it. Everything that the
 * methods of DocPreviewClient throw because of a call is a DocPreviewError. An aborted signal throws its own reason, and
 * local files Node's own errors; of `preview`, once it has made a job, they are the cause of a PreviewUnfinished.
 */

import { status } from "@grpc/grpc-js";

import type { PreviewJob } from "./gen/docpreview/v1/preview_job_pb.js";
import { adviceOn, type RetryAdvice } from "./retry.js";

/** A bad field of a request: its path, and what to do about it. */
export interface Violation {
  readonly field: string;
  readonly description: string;
}

/** A limit that refused a call: whose or which it is, and what to do about it. */
export interface QuotaViolation {
  readonly subject: string;
  readonly description: string;
}

/** What an error says beside code and message; whatever is not known is empty. */
export interface ErrorFacts {
  readonly reason: string;
  readonly retryDelayMs: number | undefined;
  readonly violations: readonly Violation[];
  readonly quota: readonly QuotaViolation[];
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
  /** Whether the same call may succeed `now` (after `retryDelayMs`; creates with the same `requestId`), `later`, or `never`. */
  readonly retry: RetryAdvice;
  /** Milliseconds to wait before the call is repeated; undefined when the gateway does not say. */
  readonly retryDelayMs: number | undefined;
  /** Every bad field of the request. */
  readonly violations: readonly Violation[];
  /** The limits and budgets that refused the call. */
  readonly quota: readonly QuotaViolation[];
  /** The metadata of the error's `google.rpc.ErrorInfo`, for example `upstream_request_id`. */
  readonly metadata: Readonly<Record<string, string>>;
  /** The gateway's id of the call. Empty when no gateway answered. */
  readonly requestId: string;

  constructor(message: string, code: status, facts?: Partial<ErrorFacts>, options?: ErrorOptions) {
    super([message, ...(facts?.violations ?? []).map((bad) => `${bad.field}: ${bad.description}`)].join("; "), options);
    this.code = code;
    this.reason = facts?.reason ?? "";
    this.retry = adviceOn(this.reason, code);
    this.retryDelayMs = facts?.retryDelayMs;
    this.violations = facts?.violations ?? [];
    this.quota = facts?.quota ?? [];
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

/** Bring a valid token or client certificate. When the token function failed, its error is the `cause`. */
export class Unauthenticated extends DocPreviewError {
  override readonly name = "Unauthenticated";
}

/** Ask the operators of the gateway for the permission. */
export class PermissionDenied extends DocPreviewError {
  override readonly name = "PermissionDenied";
}

/** Put the bucket, the cloud account or the document in order, then call again; or the job has no pages to download. */
export class FailedPrecondition extends DocPreviewError {
  override readonly name = "FailedPrecondition";
}

/** Too many calls, or a quota of the cloud account is used up: `quota` names the limit. Nothing was accepted. */
export class Throttled extends DocPreviewError {
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
export class Unavailable extends DocPreviewError {
  override readonly name = "Unavailable";
}

/** The deadline of the call has passed. */
export class DeadlineExceeded extends DocPreviewError {
  override readonly name = "DeadlineExceeded";
}

/**
 * A create was sent and its answer is lost: the job may or may not exist. Repeat it with the `requestId`
 * `createRequestId`: another id may make, and bill, a second job. With the reason `CREATE_OUTCOME_AMBIGUOUS` repeating
 * does not help: only a new `requestId` makes a new job.
 */
export class OutcomeUnknown extends DocPreviewError {
  override readonly name = "OutcomeUnknown";
  /** The `requestId` that the create was sent with. Empty when it had none: list the jobs before creating again. */
  createRequestId = "";
}

/**
 * `preview` has made a job, which is billed, and failed afterwards: `cause` says why. `wait` for the job (or `get` it), then
 * `download` it. Do not call `preview` again without the `requestId` of the first call: that makes a second job.
 */
export class PreviewUnfinished extends DocPreviewError {
  override readonly name = "PreviewUnfinished";
  override readonly retry = "never";
  /** The job as it was seen last. */
  readonly job: PreviewJob;

  constructor(job: PreviewJob, cause: unknown) {
    const why = (cause instanceof Error ? cause.message : String(cause)).replace(/\.$/, "");
    const next = `go on with download: client.wait("${job.bucket}", "${job.jobId}") or client.get, then client.download`;
    const facts = cause instanceof DocPreviewError ? { requestId: cause.requestId } : {};
    super(`job ${job.jobId} was made and its pages are not all here: ${why}; ${next}`, status.UNKNOWN, facts, { cause });
    this.job = job;
  }
}

/** Something unexpected: report it with `requestId` to the operators of the gateway. */
export class InternalError extends DocPreviewError {
  override readonly name = "InternalError";
}
