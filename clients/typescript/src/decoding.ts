/**
 * From gRPC's one error to the tree in errors.ts. Details that cannot be read are left out: an error that can be half
 * understood is better than an error about an error.
 */

import { fromBinary, type Message } from "@bufbuild/protobuf";
import type { GenMessage } from "@bufbuild/protobuf/codegenv2";
import { type Any, anyUnpack, durationMs } from "@bufbuild/protobuf/wkt";
import { status, type ServiceError } from "@grpc/grpc-js";

import * as errors from "./errors.js";
import { BadRequestSchema, ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema } from "./gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "./gen/google/rpc/status_pb.js";

type ErrorClass = new (...given: ConstructorParameters<typeof errors.DocPreviewError>) => errors.DocPreviewError;

const ERROR_DOMAIN = "docpreview";

const BY_REASON: Readonly<Record<string, ErrorClass>> = {
  CREATE_OUTCOME_UNKNOWN: errors.OutcomeUnknown,
  CREATE_OUTCOME_AMBIGUOUS: errors.OutcomeUnknown,
  CREATE_IN_PROGRESS: errors.OutcomeUnknown,
  REPLY_TOO_LARGE: errors.InvalidRequest,
  PAGE_BUDGET_EXHAUSTED: errors.BudgetExhausted,
  PAGE_BUDGET_TOO_SMALL: errors.BudgetExhausted,
};

const BY_CODE: Readonly<Partial<Record<status, ErrorClass>>> = {
  [status.INVALID_ARGUMENT]: errors.InvalidRequest,
  [status.OUT_OF_RANGE]: errors.InvalidRequest,
  [status.ALREADY_EXISTS]: errors.InvalidRequest,
  [status.NOT_FOUND]: errors.NotFound,
  [status.UNAUTHENTICATED]: errors.Unauthenticated,
  [status.PERMISSION_DENIED]: errors.PermissionDenied,
  [status.FAILED_PRECONDITION]: errors.FailedPrecondition,
  [status.RESOURCE_EXHAUSTED]: errors.Throttled,
  [status.UNAVAILABLE]: errors.Unavailable,
  // A stopping gRPC server cancels calls that it has not yet begun: https://github.com/grpc/grpc/issues/41785
  [status.CANCELLED]: errors.Unavailable,
  [status.DEADLINE_EXCEEDED]: errors.DeadlineExceeded,
};

const OPEN_CODES: ReadonlySet<status> = new Set([
  status.UNAVAILABLE,
  status.CANCELLED,
  status.DEADLINE_EXCEEDED,
  status.UNKNOWN,
  status.INTERNAL,
]);

// How grpc-js says that a call never left this process. Anything else is taken for "may have been sent".
const NEVER_SENT = /^(round_robin: )?No connection established|^Name resolution failed|^Channel closed before call started/;

/** The same failure as a DocPreviewError. */
export function decoded(error: ServiceError): errors.DocPreviewError {
  return build(error, undefined);
}

/** As `decoded`; whatever leaves open whether a job was made is an OutcomeUnknown. */
export function decodedOfCreate(error: ServiceError): errors.DocPreviewError {
  return build(error, leavesOutcomeOpen(error) ? errors.OutcomeUnknown : undefined);
}

/**
 * Whether a create that failed this way may have been accepted all the same. The gateway knows what became of a create and
 * names it in its reason. Without one the failure comes from in between: a deadline that passed here, or a broken
 * connection.
 */
function leavesOutcomeOpen(error: ServiceError): boolean {
  return OPEN_CODES.has(error.code) && !NEVER_SENT.test(error.details) && factsOf(error).reason === "";
}

function build(error: ServiceError, kind: ErrorClass | undefined): errors.DocPreviewError {
  const facts = factsOf(error);
  const Kind = kind ?? BY_REASON[facts.reason] ?? BY_CODE[error.code] ?? errors.InternalError;
  return new Kind(error.details || status[error.code], error.code, facts, { cause: error });
}

function factsOf(error: ServiceError): errors.ErrorFacts {
  const details = detailsOf(error);
  const found = unpack(details, ErrorInfoSchema);
  const info = found?.domain === ERROR_DOMAIN ? found : undefined;
  const retry = unpack(details, RetryInfoSchema)?.retryDelay;
  const header = error.metadata?.get("x-request-id")[0];
  return {
    reason: info?.reason ?? "",
    retryDelayMs: retry === undefined ? undefined : durationMs(retry),
    violations: (unpack(details, BadRequestSchema)?.fieldViolations ?? []).map(({ field, description }) => ({
      field,
      description,
    })),
    quota: (unpack(details, QuotaFailureSchema)?.violations ?? []).map(({ subject, description }) => ({
      subject,
      description,
    })),
    metadata: info?.metadata ?? {},
    requestId: info?.metadata["request_id"] ?? (typeof header === "string" ? header : ""),
  };
}

function detailsOf(error: ServiceError): Any[] {
  const [binary] = error.metadata?.get("grpc-status-details-bin") ?? [];
  try {
    return Buffer.isBuffer(binary) ? fromBinary(StatusSchema, binary).details : [];
  } catch {
    return [];
  }
}

function unpack<M extends Message>(details: Any[], schema: GenMessage<M>): M | undefined {
  for (const detail of details) {
    try {
      const message = anyUnpack(detail, schema);
      if (message !== undefined) {
        return message as M;
      }
    } catch {
      // the next one may be readable
    }
  }
  return undefined;
}
