/** What a user of the client can choose, each with its unit and default. Nothing here does anything. */

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

/** A bearer token, or a function that is asked for it before every call. */
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
  /** Milliseconds that creates and reads may take, retries included. Default 30 000. */
  readonly unaryTimeoutMs?: number;
  /** Milliseconds that `wait` waits. Default 300 000. */
  readonly waitTimeoutMs?: number;
  /** Milliseconds that `watch` may take over all its streams. Default 3 600 000. */
  readonly watchTimeoutMs?: number;
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
  /** Ends the call; its reason is what the method throws. */
  readonly signal?: AbortSignal | undefined;
}

export interface PageUrlOptions extends CallOptions {
  /** When given, each page comes with an address that is valid so many milliseconds: 1000 to 3 600 000. */
  readonly pageUrlTtlMs?: number | undefined;
}
