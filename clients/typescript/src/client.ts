/**
 * The client: one method for each thing that the gateway does. It holds no state beside its channel. Reads are repeated by
 * gRPC itself (channel.ts), creates only when they carry a `requestId` (repeating.ts).
 */

import { equals, type MessageInitShape } from "@bufbuild/protobuf";
import { type Duration, durationFromMs } from "@bufbuild/protobuf/wkt";

import { type Bounds, Connection } from "./connection.js";
import { Deadline } from "./deadline.js";
import { decodedOfCreate } from "./decoding.js";
import { type PreviewJob, PreviewJobSchema } from "./gen/docpreview/v1/preview_job_pb.js";
import {
  type BatchGetPreviewJobsResponse,
  type CreatePreviewJobRequestSchema,
  type ListPreviewJobsRequestSchema,
  type ListPreviewJobsResponse,
  PreviewJobService,
} from "./gen/docpreview/v1/preview_job_service_pb.js";
import {
  type ListPreviewQueuesRequestSchema,
  type PreviewQueue,
  PreviewQueueService,
} from "./gen/docpreview/v1/preview_queue_service_pb.js";
import { type Usage, UsageService } from "./gen/docpreview/v1/usage_service_pb.js";
import type { CallOptions, ClientOptions, PageUrlOptions } from "./options.js";
import { repeated } from "./repeating.js";
import { followed, isTerminal, Reconnecting } from "./watching.js";

// The gateway waits no longer in one call.
const LONGEST_WAIT_MS = 300_000;
// The gateway answers when its waiting time is over; this much longer the client listens for that answer.
const WAIT_MARGIN_MS = 10_000;

/** Fields of a create, as a plain object. What they mean and may be stands in the .proto files. */
export type CreateRequest = MessageInitShape<typeof CreatePreviewJobRequestSchema>;
/** Which jobs are listed, and how. */
export type ListRequest = MessageInitShape<typeof ListPreviewJobsRequestSchema>;
/** Which queues are listed. */
export type ListQueuesRequest = MessageInitShape<typeof ListPreviewQueuesRequestSchema>;

/** Talks to one docpreview gateway (all its replicas). Make one and share it, and `close` it in the end. */
export class DocPreviewClient {
  readonly #connection: Connection;
  readonly #options: ClientOptions;

  /**
   * Connects when the first call is made. `target` is `host:port`, or a target as gRPC resolves it: `dns:///host:port` (all
   * addresses of the host are used in turn), `unix:/path`. Throws a TypeError when a token would be sent in the clear.
   */
  constructor(target = "127.0.0.1:50051", options: ClientOptions = {}) {
    this.#connection = new Connection(target, options);
    this.#options = options;
  }

  /** Ends the calls in flight and closes the connections. */
  close(): void {
    this.#connection.close();
  }

  /**
   * Submits a job. Every create is billed, so it is made once; with a `requestId` (a UUID) up to five times, until its
   * outcome is known.
   *
   * Throws OutcomeUnknown when the job may or may not exist, also when the deadline passes or the connection breaks before
   * the gateway has answered; Unavailable when nothing was accepted.
   */
  async create(request: CreateRequest, options: CallOptions = {}): Promise<PreviewJob> {
    const bounds = this.#bounds(options);
    const attempt = (): Promise<PreviewJob> =>
      this.#connection.unary(PreviewJobService.method.createPreviewJob, request, bounds, decodedOfCreate);
    return request.requestId ? repeated(attempt, bounds) : attempt();
  }

  /** Creates a job as `create` does and follows it as `watch` does; the options are those of watching. */
  async *createAndWatch(request: CreateRequest, options: PageUrlOptions = {}): AsyncGenerator<PreviewJob, void, undefined> {
    const created = await this.create(request, { signal: options.signal });
    yield created;
    for await (const job of this.watch(created.bucket, created.jobId, options)) {
      if (!equals(PreviewJobSchema, job, created)) {
        yield job;
      }
    }
  }

  /** Returns one job. Throws NotFound when there is none with this id in the bucket, or when it is older than a month. */
  async get(bucket: string, jobId: string, options: PageUrlOptions = {}): Promise<PreviewJob> {
    const request = { bucket, jobId, ...ttl(options) };
    return this.#connection.unary(PreviewJobService.method.getPreviewJob, request, this.#bounds(options));
  }

  /** Returns 1 to 100 jobs in the order asked, and the ids that do not exist in `missingJobIds`. */
  async batchGet(bucket: string, jobIds: string[], options: PageUrlOptions = {}): Promise<BatchGetPreviewJobsResponse> {
    const request = { bucket, jobIds, ...ttl(options) };
    return this.#connection.unary(PreviewJobService.method.batchGetPreviewJobs, request, this.#bounds(options));
  }

  /** Returns one page of the bucket's jobs; `nextPageToken` of the answer leads to the next. */
  async listPage(request: ListRequest, options: CallOptions = {}): Promise<ListPreviewJobsResponse> {
    return this.#connection.unary(PreviewJobService.method.listPreviewJobs, request, this.#bounds(options));
  }

  /** Yields all jobs that `listPage` would return page by page; the timeout is that of each page. */
  async *list(request: ListRequest, options: CallOptions = {}): AsyncGenerator<PreviewJob, void, undefined> {
    for (let pageToken = request.pageToken ?? ""; ; ) {
      const page = await this.listPage({ ...request, pageToken }, options);
      yield* page.jobs;
      pageToken = page.nextPageToken;
      if (pageToken === "") {
        return;
      }
    }
  }

  /**
   * Returns the job when its state is terminal, or as it is when the timeout (of any length) has passed: check its state.
   * Times when the gateway asks to come back later are waited out.
   */
  async wait(bucket: string, jobId: string, options: PageUrlOptions = {}): Promise<PreviewJob> {
    const end = new Deadline(options.timeoutMs ?? this.#options.waitTimeoutMs ?? 300_000);
    const reconnecting = new Reconnecting(this.#options.unreachableMs ?? 60_000, { deadline: end, signal: options.signal });
    for (;;) {
      const part = Math.min(Math.round(end.remaining()), LONGEST_WAIT_MS);
      const request = { bucket, jobId, timeout: durationFromMs(part), ...ttl(options) };
      const bounds = { deadline: new Deadline(part + WAIT_MARGIN_MS), signal: options.signal };
      try {
        const job = await this.#connection.unary(PreviewJobService.method.waitPreviewJob, request, bounds);
        if (isTerminal(job.state) || end.remaining() === 0) {
          return job;
        }
        reconnecting.heard();
      } catch (error) {
        await reconnecting.pauseAfter(error);
      }
    }
  }

  /**
   * Yields the job as it is and then after every change; ends after the terminal state. Streams that end for reasons of
   * their own are replaced; slow readers get the latest state, not a backlog. Leaving the loop ends the stream.
   */
  async *watch(bucket: string, jobId: string, options: PageUrlOptions = {}): AsyncGenerator<PreviewJob, void, undefined> {
    const timeoutMs = options.timeoutMs ?? this.#options.watchTimeoutMs ?? 3_600_000;
    const bounds = { deadline: new Deadline(timeoutMs), signal: options.signal };
    const request = { bucket, jobId, ...ttl(options) };
    yield* followed(() => this.#connection.stream(PreviewJobService.method.watchPreviewJob, request, bounds), bounds, {
      idleMs: this.#options.idleMs ?? 60_000,
      unreachableMs: this.#options.unreachableMs ?? 60_000,
    });
  }

  /** Yields the bucket's queues, page by page. */
  async *listQueues(request: ListQueuesRequest, options: CallOptions = {}): AsyncGenerator<PreviewQueue, void, undefined> {
    for (let pageToken = request.pageToken ?? ""; ; ) {
      const { listPreviewQueues } = PreviewQueueService.method;
      const page = await this.#connection.unary(listPreviewQueues, { ...request, pageToken }, this.#bounds(options));
      yield* page.queues;
      pageToken = page.nextPageToken;
      if (pageToken === "") {
        return;
      }
    }
  }

  /** Returns the pages that the caller has used, and what it may use. */
  async usage(options: CallOptions = {}): Promise<Usage> {
    return this.#connection.unary(UsageService.method.getUsage, {}, this.#bounds(options));
  }

  #bounds(options: CallOptions): Bounds {
    const timeoutMs = options.timeoutMs ?? this.#options.unaryTimeoutMs ?? 30_000;
    return { deadline: new Deadline(timeoutMs), signal: options.signal };
  }
}

function ttl(options: PageUrlOptions): { pageUrlTtl?: Duration } {
  return options.pageUrlTtlMs === undefined ? {} : { pageUrlTtl: durationFromMs(options.pageUrlTtlMs) };
}
