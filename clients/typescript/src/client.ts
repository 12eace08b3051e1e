/**
 * The client: one method for each thing that the gateway does. It holds no state beside its connections. Reads are
 * repeated by gRPC itself (channel.ts), creates by repeating.ts.
 */

import { randomUUID } from "node:crypto";
import { setMaxListeners } from "node:events";

import {
  type DescMessage,
  type DescMethodUnary,
  equals,
  type MessageShape,
} from "@bufbuild/protobuf";
import { durationFromMs } from "@bufbuild/protobuf/wkt";

import { checkDownload, checkId, checkIds, checkTimeout } from "./checking.js";
import { Connection } from "./connection.js";
import { type Bounds, Deadline } from "./deadline.js";
import { decodedOfCreate } from "./decoding.js";
import { downloaded, type PageFile, resultOf } from "./downloading.js";
import { OutcomeUnknown, PreviewUnfinished } from "./errors.js";
import { type PreviewJob, PreviewJob_State, PreviewJobSchema } from "./gen/docpreview/v1/preview_job_pb.js";
import {
  type BatchGetPreviewJobsResponse,
  type ListPreviewJobsResponse,
  PreviewJobService,
} from "./gen/docpreview/v1/preview_job_service_pb.js";
import { type PreviewQueue, PreviewQueueService } from "./gen/docpreview/v1/preview_queue_service_pb.js";
import type { UploadedObject } from "./gen/docpreview/v1/upload_service_pb.js";
import { type Usage, UsageService } from "./gen/docpreview/v1/usage_service_pb.js";
import type { Init } from "./init.js";
import { alone, Manifest } from "./manifest.js";
import type {
  CallOptions,
  ClientOptions,
  CreateOptions,
  DownloadOptions,
  PageUrlOptions,
  PreviewCallOptions,
  UploadOptions,
} from "./options.js";
import { createAgain, refusedByStopping, repeated } from "./repeating.js";
import {
  type CreateRequest,
  defaultObject,
  defaultOutput,
  type ListQueuesRequest,
  type ListRequest,
  pageUrlTtl,
  type Source,
} from "./requests.js";
import { Storage } from "./transfer.js";
import { type Destination, Uploading } from "./uploading.js";
import { type JobEvent, watchOf, watchOfMany } from "./watches.js";
import { isTerminal, type Patience, Reconnecting } from "./watching.js";

// The gateway waits no longer in one call.
const LONGEST_WAIT_MS = 300_000;
// The gateway answers when its waiting time is over; this much longer the client listens for that answer.
const WAIT_MARGIN_MS = 10_000;
// The most that a page of a list may have.
const PAGE_SIZE = 100;
const PAGE_URL_TTL_MS = 600_000;
const TRANSFER_TIMEOUT_MS = 600_000;
const WATCH_TIMEOUT_MS = 3_600_000;

/** Talks to one docpreview gateway (all its replicas). Make one and share it, and `close` it in the end. */
export class DocPreviewClient {
  readonly #connection: Connection;
  readonly #storage = new Storage();
  readonly #options: ClientOptions;

  /**
   * Connects when the first call is made. `target` is `host:port`, or a target as gRPC resolves it: `dns:///host:port` (all
   * addresses of the host are used in turn), `unix:/path`. Throws a TypeError when a token would be sent in the clear.
   */
  constructor(target = "127.0.0.1:50051", options: ClientOptions = {}) {
    this.#connection = new Connection(target, options);
    this.#options = options;
  }

  /** Ends the calls in flight, which throw, and closes the connections. */
  close(): void {
    this.#connection.close();
    this.#storage.close();
  }

  /**
   * The whole way from a document to page images on disk: uploads it, creates a job, watches it to its end and downloads
   * the pages. The directory is made, and checked, before anything is sent. The timeout is that of the whole.
   *
   * `source` is the path of a file, or its bytes, which need the option `object`. There are no files when the state of the
   * job is not SUCCESS: `job.failure` says why. The directory then has no pages of an earlier job either.
   *
   * Throws PreviewUnfinished, with the job, when anything fails after the job was made: go on with `download`. Calls with
   * the same `request.requestId`, such as the `createRequestId` of an OutcomeUnknown, and the same content make one job;
   * with another content they are refused. Give a `requestId` of your own when the call may be cancelled, or the process
   * may end: with it the preview can be repeated without a second job. Only one download or preview of a process goes to
   * a directory at a time; another is an InvalidRequest.
   */
  async preview(
    source: Source,
    bucket: string,
    directory: string,
    options: PreviewCallOptions = {},
  ): Promise<{ job: PreviewJob; files: PageFile[] }> {
    const bounds = this.#bounds(options, this.#options.watchTimeoutMs ?? WATCH_TIMEOUT_MS);
    const requestId = options.request?.requestId || randomUUID();
    checkId(requestId);
    checkDownload(directory, options);
    const to = { bucket, object: options.object ?? defaultObject(source), contentType: "" };
    return alone(directory, () => this.#preview(source, to, directory, requestId, { ...options, ...bounds }));
  }

  async #preview(
    source: Source,
    to: Destination,
    directory: string,
    requestId: string,
    options: Bounds & PreviewCallOptions,
  ): Promise<{ job: PreviewJob; files: PageFile[] }> {
    const left = (): PreviewCallOptions => ({ ...options, timeoutMs: options.deadline.remaining() });
    const { request } = options;
    const object = await new Uploading(this.#connection, this.#storage).bring(source, to, requestId, options);
    const output = { ...request?.output, object: request?.output?.object || defaultOutput(object, request?.options) };
    const sent = { ...request, bucket: to.bucket, inputObject: object, output, requestId };
    let job = await this.create(sent, this.#within(left()));
    try {
      options.onJob?.(job);
      await Manifest.of(directory, job.jobId); // deletes the pages of another job, also when this one is to fail
      for await (job of this.watch(job.bucket, job.jobId, { pageUrlTtlMs: PAGE_URL_TTL_MS, ...left() })) {
        options.onJob?.(job);
      }
      const good = job.state === PreviewJob_State.SUCCESS;
      return { job, files: good ? await this.#download(job, directory, left()) : [] };
    } catch (cause) {
      throw new PreviewUnfinished(job, cause);
    }
  }

  /**
   * Brings a document to a bucket: straight to the storage, by addresses that the gateway signs. Large documents go up in
   * parts, some at the same time. `source` is the path of a file, or its bytes. `object` is its key there, in which
   * `${UploadId}` becomes something that is new each time; by default `in/${UploadId}.<suffix of the file>`. The
   * `object` of the answer is the `inputObject` of a create.
   */
  async upload(
    source: Source,
    bucket: string,
    object = defaultObject(source),
    options: UploadOptions = {},
  ): Promise<UploadedObject> {
    const bounds = this.#bounds(options, this.#options.transferTimeoutMs ?? TRANSFER_TIMEOUT_MS);
    const to = { bucket, object, contentType: options.contentType ?? "" };
    return new Uploading(this.#connection, this.#storage).upload(source, to, bounds);
  }

  /**
   * Downloads the pages of a job in STATE_SUCCESS to a directory, and returns the files in the order of the pages:
   * `page-0001.jpg`, of spreadsheets `sheet-01-page-001.jpg`, of PDF targets `document.pdf`. Pages that the directory has
   * already are not fetched again, broken downloads go on where they stopped, and pages of another job that an earlier
   * download left there are deleted. Only one download at a time may go to a directory: of this process another one is an
   * InvalidRequest. Throws FailedPrecondition when the job has no pages, and Unavailable also when, after repeats, what comes is no page: an answer that is empty, of another
   * content type, or longer than it says (than 1 GiB, where it does not).
   */
  async download(job: PreviewJob, directory: string, options: DownloadOptions = {}): Promise<PageFile[]> {
    resultOf(job); // before the directory is made
    checkDownload(directory, options);
    return alone(directory, () => this.#download(job, directory, options));
  }

  async #download(job: PreviewJob, directory: string, options: DownloadOptions): Promise<PageFile[]> {
    const bounds = this.#bounds(options, this.#options.transferTimeoutMs ?? TRANSFER_TIMEOUT_MS);
    const renewed = (): Promise<PreviewJob> => {
      const timeoutMs = bounds.deadline.remaining();
      const asked = { ...options, pageUrlTtlMs: options.pageUrlTtlMs ?? PAGE_URL_TTL_MS, timeoutMs };
      return this.get(job.bucket, job.jobId, this.#within(asked));
    };
    return downloaded(this.#storage, job, renewed, directory, { ...options, ...bounds });
  }

  /**
   * Submits a job. Every create is billed: without a `requestId` the client makes one, and with it repeats the create
   * until its outcome is known, or the deadline. The option `once` turns both off.
   *
   * Throws OutcomeUnknown when the job may or may not exist, also when the deadline passes or the connection breaks before
   * the gateway has answered; Unavailable when nothing was accepted.
   */
  async create(request: CreateRequest, options: CreateOptions = {}): Promise<PreviewJob> {
    const bounds = this.#bounds(options);
    const requestId = request.requestId || (options.once === true ? "" : randomUUID());
    const sent = { ...request, requestId };
    const manner = { decode: decodedOfCreate };
    try {
      return await repeated(
        () => this.#connection.unary(PreviewJobService.method.createPreviewJob, sent, bounds, manner),
        bounds,
        (error) => options.once !== true && createAgain(error),
      );
    } catch (error) {
      if (error instanceof OutcomeUnknown) {
        error.createRequestId = requestId;
      }
      throw error;
    }
  }

  /** Creates a job as `create` does and follows it as `watch` does; the timeout is that of watching. */
  async *createAndWatch(
    request: CreateRequest,
    options: CreateOptions & PageUrlOptions = {},
  ): AsyncGenerator<PreviewJob, void, undefined> {
    const created = await this.create(request, { ...options, timeoutMs: undefined });
    yield created;
    for await (const job of this.watch(created.bucket, created.jobId, options)) {
      if (!equals(PreviewJobSchema, job, created)) {
        yield job;
      }
    }
  }

  /** Returns one job. Throws NotFound when there is none with this id in the bucket, or when it is older than a month. */
  async get(bucket: string, jobId: string, options: PageUrlOptions = {}): Promise<PreviewJob> {
    return this.#read(PreviewJobService.method.getPreviewJob, { bucket, jobId, ...pageUrlTtl(options) }, options);
  }

  /** Returns 1 to 100 jobs in the order asked, and the ids that do not exist in `missingJobIds`. */
  async batchGet(bucket: string, jobIds: string[], options: PageUrlOptions = {}): Promise<BatchGetPreviewJobsResponse> {
    checkIds(jobIds);
    return this.#read(PreviewJobService.method.batchGetPreviewJobs, { bucket, jobIds, ...pageUrlTtl(options) }, options);
  }

  /** Returns one page of the bucket's jobs, 100 unless `pageSize` is set; `nextPageToken` of the answer leads to the next. */
  async listPage(request: ListRequest, options: CallOptions = {}): Promise<ListPreviewJobsResponse> {
    const sent = { ...request, pageSize: request.pageSize || PAGE_SIZE };
    return this.#read(PreviewJobService.method.listPreviewJobs, sent, options);
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
    const whole = this.#bounds(options, this.#options.waitTimeoutMs ?? 300_000);
    const reconnecting = new Reconnecting(this.#patience.unreachableMs, whole);
    for (;;) {
      const part = Math.min(Math.round(whole.deadline.remaining()), LONGEST_WAIT_MS);
      const request = { bucket, jobId, timeout: durationFromMs(part), ...pageUrlTtl(options) };
      const bounds = { ...whole, deadline: new Deadline(part + WAIT_MARGIN_MS) };
      try {
        const { waitPreviewJob } = PreviewJobService.method;
        const job = await this.#connection.unary(waitPreviewJob, request, bounds, { lasting: true });
        if (isTerminal(job.state) || whole.deadline.remaining() === 0) {
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
    const bounds = this.#bounds(options, this.#options.watchTimeoutMs ?? WATCH_TIMEOUT_MS);
    yield* watchOf(this.#connection, [bucket, jobId], { ...options, ...bounds }, this.#patience);
  }

  /**
   * Follows many jobs of a bucket as `watch` does one: yields each job as it is and then after every change, or the error
   * of a job that cannot be followed; ends when each job has ended. An id that is given twice is followed once.
   */
  async *watchMany(
    bucket: string,
    jobIds: Iterable<string>,
    options: PageUrlOptions = {},
  ): AsyncGenerator<JobEvent, void, undefined> {
    checkIds(jobIds);
    const bounds = this.#bounds(options, this.#options.watchTimeoutMs ?? WATCH_TIMEOUT_MS);
    yield* watchOfMany(this.#connection, bucket, jobIds, { ...options, ...bounds }, this.#patience);
  }

  /** Yields the bucket's queues, page by page. */
  async *listQueues(request: ListQueuesRequest, options: CallOptions = {}): AsyncGenerator<PreviewQueue, void, undefined> {
    const sent = { ...request, pageSize: request.pageSize || PAGE_SIZE };
    for (let pageToken = request.pageToken ?? ""; ; ) {
      const page = await this.#read(PreviewQueueService.method.listPreviewQueues, { ...sent, pageToken }, options);
      yield* page.queues;
      pageToken = page.nextPageToken;
      if (pageToken === "") {
        return;
      }
    }
  }

  /** Returns the pages that the caller has used, and what it may use. */
  async usage(options: CallOptions = {}): Promise<Usage> {
    return this.#read(UsageService.method.getUsage, {}, options);
  }

  async #read<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: Init<MessageShape<I>>,
    options: CallOptions,
  ): Promise<MessageShape<O>> {
    const bounds = this.#bounds(options);
    return repeated(() => this.#connection.unary(method, request, bounds), bounds, refusedByStopping);
  }

  #bounds(options: CallOptions, timeoutMs = this.#unaryTimeoutMs): Bounds {
    if (options.signal !== undefined) {
      setMaxListeners(0, options.signal); // one signal may well end a thousand watches
    }
    const within = options.timeoutMs ?? timeoutMs;
    checkTimeout(within);
    return { ...options, deadline: new Deadline(within) };
  }

  /** The options of a call that is part of another: it may take as long as any, but not longer than the other. */
  #within<T extends { timeoutMs?: number | undefined }>(options: T): T {
    return { ...options, timeoutMs: Math.min(options.timeoutMs ?? Infinity, this.#unaryTimeoutMs) };
  }

  get #unaryTimeoutMs(): number {
    return this.#options.unaryTimeoutMs ?? 30_000;
  }

  get #patience(): Patience {
    return { idleMs: this.#options.idleMs ?? 60_000, unreachableMs: this.#options.unreachableMs ?? 60_000 };
  }
}
