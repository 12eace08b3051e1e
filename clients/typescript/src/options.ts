/** What a user of the client can choose, each with its unit and default. Nothing here does anything. */

import type { Interceptor } from "@grpc/grpc-js";

import type { PreviewJob } from "./gen/docpreview/v1/preview_job_pb.js";
import type { CreateRequest } from "./requests.js";

/** An encrypted connection; `{}` checks the gateway's certificate against the authorities that come with Node.js. */
export interface Tls {
  /** Authorities to trust, as PEM. */
  readonly rootCertificates?: Uint8Array;
  /** The client's own certificate, as PEM. Goes with `privateKey`. */
  readonly certificateChain?: Uint8Array;
  /** The key of `certificateChain`, as PEM. */
  readonly privateKey?: Uint8Array;
  /** The name that the gateway's certificate must have. Default: the host of the target. */
  readonly serverName?: string;
}

/** A bearer token, or a function that is asked for it before every call. A call whose function fails is Unauthenticated. */
export type Token = string | (() => string | Promise<string>);

export interface ClientOptions {
  /** How to encrypt. Default: not at all. */
  readonly tls?: Tls;
  /** Sent as `authorization: Bearer <token>`, over an encrypted connection or to this machine only. */
  readonly token?: Token;
  /** Put in front of the client's own user agent: name your service here. */
  readonly userAgent?: string;
  /** Asked before every call for metadata to send with it, for example `traceparent` or `x-request-id`. */
  readonly metadata?: () => Readonly<Record<string, string>>;
  /** Interceptors of grpc-js, around every attempt of every call: for traces, metrics or logs of your own. */
  readonly interceptors?: readonly Interceptor[];
  /** Milliseconds that creates and reads may take, retries included. Default 30 000. */
  readonly unaryTimeoutMs?: number;
  /** Milliseconds that `wait` waits. Default 300 000. */
  readonly waitTimeoutMs?: number;
  /** Milliseconds that `watch`, `watchMany` and `preview` may take over all their streams. Default 3 600 000. */
  readonly watchTimeoutMs?: number;
  /** Milliseconds that `upload` and `download` may take. Default 600 000. */
  readonly transferTimeoutMs?: number;
  /**
   * A stream on which nothing comes for so many milliseconds, not even a heartbeat, is replaced. Keep it well above the
   * gateway's heartbeat interval (15 s by default). Default 60 000.
   */
  readonly idleMs?: number;
  /** For how many milliseconds watches and waits try again while no message comes at all. Default 60 000. */
  readonly unreachableMs?: number;
}

export interface CallOptions {
  /** Milliseconds that the call may take with all its retries. Default: that of the client. */
  readonly timeoutMs?: number | undefined;
  /** Ends the call; its reason is what the method throws (`preview` with a job: the `cause` of its PreviewUnfinished). */
  readonly signal?: AbortSignal | undefined;
  /** Asks the gateway for a fresh answer (`cache-control: no-cache`); of a create: for a new job. Default false. */
  readonly noCache?: boolean | undefined;
  /** Metadata to send with this call, over that of the client. */
  readonly metadata?: Readonly<Record<string, string>> | undefined;
  /**
   * Gets the metadata of each reply, of errors too: `x-request-id`, and `x-cache` (`miss`, `coalesced`, `hit`, `stale`)
   * where the gateway sends it. A call of several attempts or streams has several replies.
   */
  readonly onMetadata?: ((metadata: Readonly<Record<string, string>>) => void) | undefined;
}

export interface CreateOptions extends CallOptions {
  /** Makes one attempt, and no `requestId` when the request has none. Default false. */
  readonly once?: boolean | undefined;
}

export interface PageUrlOptions extends CallOptions {
  /** When given, each page comes with an address that is valid so many milliseconds: 1000 to 3 600 000. */
  readonly pageUrlTtlMs?: number | undefined;
}

export interface UploadOptions extends CallOptions {
  /** MIME type of the content. Default: the type that belongs to the suffix of the object. */
  readonly contentType?: string | undefined;
}

/** How far a download is. */
export interface Progress {
  /** Pages that are in the directory, complete. */
  readonly pagesDone: number;
  /** Pages of the job. */
  readonly pagesTotal: number;
  /** Bytes that this download has fetched. */
  readonly bytes: number;
}

export interface DownloadOptions extends CallOptions {
  /** How long addresses of pages are asked for, in milliseconds: 1000 to 3 600 000. Default 600 000. */
  readonly pageUrlTtlMs?: number | undefined;
  /** Pages that are fetched at the same time, 1 or more. Default 8. */
  readonly concurrency?: number | undefined;
  /** Called at the beginning and after each page. */
  readonly onProgress?: ((progress: Progress) => void) | undefined;
}

export interface PreviewCallOptions extends DownloadOptions {
  /**
   * Where to put the document. Default `in/${UploadId}.<suffix of the file>`. `${UploadId}` becomes 32 digits that follow
   * from the `requestId` and the content: a repeated call finds what it has brought, and never takes another content for it.
   */
  readonly object?: string | undefined;
  /**
   * More of the create: `options`, `preset`, `queueId`, `userData`, `output`, and `requestId` (a UUID): calls with the same
   * one and the same content make one job. The output defaults to
   * `out/${RequestToken}/page-${Number}.jpg`, of spreadsheets `out/${RequestToken}/sheet-${SheetID}/page-${Number}.jpg`.
   */
  readonly request?: Omit<CreateRequest, "bucket" | "inputObject"> | undefined;
  /** Gets the job when it is created and after each change. */
  readonly onJob?: ((job: PreviewJob) => void) | undefined;
}
