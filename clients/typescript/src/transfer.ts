/** HTTP requests to the addresses that the gateway signs. The addresses are secrets: no error tells them. */

import { Agent as HttpAgent, type IncomingMessage, request as httpRequest } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";

import { status } from "@grpc/grpc-js";

import { type Bounds, spread } from "./deadline.js";
import { DocPreviewError, FailedPrecondition, InternalError, NotFound, PermissionDenied, Unavailable } from "./errors.js";

const REPEATS = 3;
const FIRST_PAUSE_MS = 200;
const IDLE_MS = 60_000;
const LONGEST_ERROR = 65_536;
const LONGEST_BODY = 2 ** 30;

/** What the storage refused with 403: the address has expired, or is not valid for this request. */
export class Refused extends PermissionDenied {}

export interface HttpRequest {
  readonly method: "GET" | "PUT";
  readonly url: string;
  readonly headers: Readonly<Record<string, string>>;
  readonly body?: Uint8Array;
  readonly signal: AbortSignal;
}

/** Connections to the storage, kept open between requests. */
export class Storage {
  /** Bytes of a body whose length nobody tells, at most. */
  readonly longestBody: number;
  readonly #idleMs: number;
  readonly #http = new HttpAgent({ keepAlive: true });
  readonly #https = new HttpsAgent({ keepAlive: true });

  constructor({ idleMs = IDLE_MS, longestBody = LONGEST_BODY } = {}) {
    this.#idleMs = idleMs;
    this.longestBody = longestBody;
  }

  close(): void {
    this.#http.destroy();
    this.#https.destroy();
  }

  /**
   * The reply when its status is one of `wanted`; its body is still to be read. Else an error that says what the storage
   * answered: Unavailable for broken connections, 429, 5xx and what is not the storage's answer, Refused for 403.
   */
  async exchange(sent: HttpRequest, wanted: readonly number[]): Promise<IncomingMessage> {
    const reply = await this.#send(sent);
    const code = reply.statusCode ?? 0;
    const foreign = foreignTo(sent, reply, wanted);
    if (foreign === undefined && wanted.includes(code)) {
      return reply;
    }
    const body = await textOf(reply).catch(() => "");
    throw foreign === undefined ? errorOf(sent, code, body) : answeredElsewhere(sent, foreign);
  }

  #send({ method, url, headers, body, signal }: HttpRequest): Promise<IncomingMessage> {
    const address = parsed(url);
    const secure = address.protocol === "https:";
    return new Promise((resolve, reject) => {
      const options = { method, headers, signal, agent: secure ? this.#https : this.#http };
      const sending = (secure ? httpsRequest : httpRequest)(address, options, resolve);
      const idle = `nothing came for ${this.#idleMs / 1000} seconds`;
      sending.setTimeout(this.#idleMs, () => sending.destroy(new Error(idle)));
      sending.on("error", (cause) => reject(broken(cause, signal)));
      sending.on("upgrade", ({ statusCode }, socket) => {
        socket.destroy();
        reject(answeredElsewhere({ method }, `HTTP ${statusCode}`));
      });
      sending.end(body);
    });
  }
}

/** Repeats what fails with Unavailable, after growing pauses. */
export async function withRepeats<T>(attempt: () => Promise<T>, bounds: Bounds): Promise<T> {
  for (let repeats = 0; ; repeats++) {
    try {
      return await attempt();
    } catch (error) {
      if (!(error instanceof Unavailable) || repeats === REPEATS) {
        throw error;
      }
      await bounds.deadline.sleep(spread(FIRST_PAUSE_MS * 2 ** repeats), bounds.signal);
    }
  }
}

/** The body of a reply, as it comes. */
export async function* received(reply: IncomingMessage, signal: AbortSignal): AsyncGenerator<Buffer, void, undefined> {
  try {
    yield* reply as AsyncIterable<Buffer>;
  } catch (error) {
    throw broken(error, signal);
  }
}

/** A connection that broke, as an error; the signal's reason when that is why. */
function broken(cause: unknown, signal: AbortSignal): unknown {
  if (signal.aborted) {
    return signal.reason;
  }
  const why = cause instanceof Error ? cause.message || (cause as NodeJS.ErrnoException).code : "unknown";
  return new Unavailable(`The connection to the storage failed: ${why}`, status.UNAVAILABLE, {}, { cause });
}

function parsed(url: string): URL {
  if (!URL.canParse(url) || !/^https?:/.test(url)) {
    throw new InternalError("The gateway signed an address that is none of HTTP.", status.INTERNAL);
  }
  return new URL(url);
}

async function textOf(reply: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = [];
  let length = 0;
  for await (const chunk of reply as AsyncIterable<Buffer>) {
    chunks.push(chunk);
    length += chunk.length;
    if (length > LONGEST_ERROR) {
      break; // ends the connection too
    }
  }
  return Buffer.concat(chunks).toString();
}

/** What tells that a reply is not the storage's; undefined when nothing does. */
function foreignTo(
  { method }: Pick<HttpRequest, "method">,
  { statusCode: code = 0, headers }: IncomingMessage,
  wanted: readonly number[],
): string | undefined {
  if ((code < 400 && !wanted.includes(code)) || code === 407) {
    return `HTTP ${code}`;
  }
  if (method === "PUT" && mediaType(headers["content-type"] ?? "") === "text/html") {
    return `HTTP ${code} and a page of HTML`; // the storage's own errors are XML
  }
  return method === "PUT" && code < 400 && !headers.etag ? `HTTP ${code} without an ETag` : undefined;
}

function answeredElsewhere({ method }: Pick<HttpRequest, "method">, what: string): Unavailable {
  const message = `Something on the way (a proxy) answered ${method} with ${what}, not the storage.`;
  return new Unavailable(message, status.UNAVAILABLE);
}

/** A content type without its parameters. */
export function mediaType(contentType: string): string {
  return (contentType.split(";")[0] ?? "").trim().toLowerCase();
}

function errorOf({ method, headers }: HttpRequest, code: number, body: string): DocPreviewError {
  const name = /<Code>([A-Za-z0-9.]{1,64})<\/Code>/.exec(body)?.[1];
  const message = `The storage answered ${method} with HTTP ${code}${name === undefined ? "" : ` ${name}`}.`;
  if (code === 403) {
    return new Refused(message, status.PERMISSION_DENIED);
  }
  if (code === 404) {
    return new NotFound(message, status.NOT_FOUND);
  }
  if (code === 409 || code === 412) {
    return new FailedPrecondition(message, status.FAILED_PRECONDITION); // the object is there, and may not be overwritten
  }
  if (code === 416 && "Range" in headers) {
    return new RangeRefused(message, status.INTERNAL);
  }
  return code === 429 || code >= 500
    ? new Unavailable(message, status.UNAVAILABLE)
    : new InternalError(message, status.INTERNAL);
}

/** The storage has no such range: what is there already is too long. */
export class RangeRefused extends InternalError {}
