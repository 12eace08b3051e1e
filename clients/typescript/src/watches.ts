/** Watches of one job and of many, on streams that are replaced when they end too early (watching.ts). */

import { equals } from "@bufbuild/protobuf";
import { type ServiceError, status } from "@grpc/grpc-js";

import type { Connection } from "./connection.js";
import type { Bounds } from "./deadline.js";
import { ErrorReason } from "./gen/docpreview/v1/error_reason_pb.js";
import { type PreviewJob, PreviewJobSchema } from "./gen/docpreview/v1/preview_job_pb.js";
import { PreviewJobService, type WatchPreviewJobsResponse } from "./gen/docpreview/v1/preview_job_service_pb.js";
import type { PageUrlOptions } from "./options.js";
import { pageUrlTtl } from "./requests.js";
import { adviceOn, type RetryAdvice } from "./retry.js";
import { followed, isTerminal, type Patience } from "./watching.js";

// The gateway follows no more in one stream.
const JOBS_PER_STREAM = 1000;

/** A job that cannot be followed: nothing more comes of it. */
export interface JobError {
  /** Name of an `ErrorReason`, such as `JOB_NOT_FOUND`. */
  readonly reason: string;
  readonly message: string;
  /** Whether watching the job again may succeed. */
  readonly retry: RetryAdvice;
}

/** A job as it is now, or why it cannot be followed. */
export type JobEvent =
  | { readonly jobId: string; readonly job: PreviewJob; readonly error?: undefined }
  | { readonly jobId: string; readonly job?: undefined; readonly error: JobError };

/** Yields the present job and then each one that differs from the one before, until its terminal state. */
export async function* watchOf(
  connection: Connection,
  [bucket, jobId]: [string, string],
  bounds: Bounds & PageUrlOptions,
  patience: Patience,
): AsyncGenerator<PreviewJob, void, undefined> {
  const request = { bucket, jobId, ...pageUrlTtl(bounds) };
  const seen = new Seen([jobId]);
  const following = {
    open: () => connection.stream(PreviewJobService.method.watchPreviewJob, request, bounds),
    over: () => seen.left.size === 0,
    failed: (error: ServiceError) => connection.failed(error, bounds),
  };
  for await (const { job } of followed(following, bounds, patience)) {
    if (job !== undefined && seen.isNew(jobId, job)) {
      yield job;
    }
  }
}

/** Yields the events of all jobs, over several streams at the same time when there are more than one can have. */
export async function* watchOfMany(
  connection: Connection,
  bucket: string,
  jobIds: Iterable<string>,
  bounds: Bounds & PageUrlOptions,
  patience: Patience,
): AsyncGenerator<JobEvent, void, undefined> {
  const ids = [...new Set(jobIds)];
  const { signal, end, release } = bounds.deadline.ending(bounds.signal);
  const parts = [];
  for (let first = 0; first < ids.length; first += JOBS_PER_STREAM) {
    const part = ids.slice(first, first + JOBS_PER_STREAM);
    parts.push(watchOfPart(connection, bucket, part, { ...bounds, signal }, patience));
  }
  try {
    yield* merged(parts);
  } finally {
    end(new Error("The watch has ended.")); // and with it the streams that still run
    release();
  }
}

/** Yields what all parts yield, as it comes. */
async function* merged<T>(parts: AsyncGenerator<T, void, undefined>[]): AsyncGenerator<T, void, undefined> {
  const coming = new Map<object, Promise<{ part: (typeof parts)[number]; next: IteratorResult<T, void> }>>();
  const pull = (part: (typeof parts)[number]): void => {
    const next = part.next().then((result) => ({ part, next: result }));
    next.catch(() => undefined); // thrown by the race, unless another part fails first
    coming.set(part, next);
  };
  parts.forEach(pull);
  while (coming.size > 0) {
    const { part, next } = await Promise.race(coming.values());
    coming.delete(part);
    if (next.done !== true) {
      pull(part);
      yield next.value;
    }
  }
}

async function* watchOfPart(
  connection: Connection,
  bucket: string,
  jobIds: string[],
  bounds: Bounds & PageUrlOptions,
  patience: Patience,
): AsyncGenerator<JobEvent, void, undefined> {
  const seen = new Seen(jobIds);
  const following = {
    open: () =>
      connection.stream(
        PreviewJobService.method.watchPreviewJobs,
        { bucket, jobIds: [...seen.left], ...pageUrlTtl(bounds) },
        bounds,
      ),
    over: () => seen.left.size === 0,
    failed: (error: ServiceError) => connection.failed(error, bounds),
  };
  for await (const { event } of followed<WatchPreviewJobsResponse>(following, bounds, patience)) {
    if (event.case === "job" && seen.isNew(event.value.jobId, event.value)) {
      yield { jobId: event.value.jobId, job: event.value };
    } else if (event.case === "error" && seen.left.delete(event.value.jobId)) {
      const { jobId, message } = event.value;
      const reason = ErrorReason[event.value.reason] ?? String(event.value.reason);
      yield { jobId, error: { reason, message, retry: adviceOn(reason, status.UNKNOWN) } };
    }
  }
}

/** The last state of each job, since every stream begins with the present one. */
class Seen {
  /** Ids whose end has not come. */
  readonly left: Set<string>;
  readonly #last = new Map<string, PreviewJob>();

  constructor(jobIds: Iterable<string>) {
    this.left = new Set(jobIds);
  }

  /** Whether the job differs from the last one of this id. */
  isNew(jobId: string, job: PreviewJob): boolean {
    const last = this.#last.get(jobId);
    if (!this.left.has(jobId) || (last !== undefined && equals(PreviewJobSchema, job, last))) {
      return false;
    }
    this.#last.set(jobId, job);
    if (isTerminal(job.state)) {
      this.left.delete(jobId);
      this.#last.delete(jobId);
    }
    return true;
  }
}
