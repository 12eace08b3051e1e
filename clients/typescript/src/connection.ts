/** Calls with the messages of protobuf-es: deadlines, metadata, cancellation, typed errors. */

import {
  create,
  type DescMessage,
  type DescMethodServerStreaming,
  type DescMethodUnary,
  fromBinary,
  type MessageInitShape,
  type MessageShape,
  toBinary,
} from "@bufbuild/protobuf";
import { type Client, type ClientReadableStream, Metadata, type ServiceError, status } from "@grpc/grpc-js";

import { channels } from "./channel.js";
import type { Bounds } from "./deadline.js";
import { decoded } from "./decoding.js";
import { Unauthenticated } from "./errors.js";
import type { Init } from "./init.js";
import type { ClientOptions } from "./options.js";
import { type Place, StreamPool } from "./pool.js";

/** How a call differs from a plain read. */
export interface Manner {
  /** Makes the error that is thrown. */
  readonly decode?: (error: ServiceError) => Error;
  /** Whether the call stays open for long: it then travels beside the others (pool.ts). */
  readonly lasting?: boolean;
}

export class Connection {
  readonly #channel: Client;
  readonly #lasting: StreamPool;
  readonly #options: ClientOptions;
  readonly #calls = new Set<{ cancel(): void }>();
  #closed = false;

  constructor(target: string, options: ClientOptions) {
    const open = channels(target, options);
    this.#channel = open();
    this.#lasting = new StreamPool(open);
    this.#options = options;
  }

  close(): void {
    this.#closed = true;
    this.#calls.forEach((call) => call.cancel());
    this.#channel.close();
    this.#lasting.close();
  }

  /** One call and its answer. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: Init<MessageShape<I>>,
    bounds: Bounds,
    { decode = decoded, lasting = false }: Manner = {},
  ): Promise<MessageShape<O>> {
    const metadata = await this.#metadata(bounds);
    this.#throwIfClosed();
    const [path, serialize, deserialize] = wire(method);
    const input = create(method.input, request as MessageInitShape<I>);
    const place = lasting ? this.#lasting.take() : undefined;
    return new Promise<MessageShape<O>>((resolve, reject) => {
      const aborted = (): void => call.cancel();
      let headers: Metadata | undefined;
      const call = (place?.channel ?? this.#channel).makeUnaryRequest(
        path,
        serialize,
        deserialize,
        input,
        metadata,
        { deadline: Date.now() + bounds.deadline.remaining() },
        (error, reply) => {
          bounds.signal?.removeEventListener("abort", aborted);
          if (error === null) {
            resolve(reply as MessageShape<O>);
          } else {
            reject(this.#cancelled(bounds) ?? decode(error));
          }
        },
      );
      call.on("metadata", (sent) => (headers = sent));
      call.on("status", (ended) => tell(bounds, headers, ended.metadata));
      this.#follow(call, place);
      bounds.signal?.addEventListener("abort", aborted, { once: true });
    });
  }

  /** A stream; cancel it when it is no longer wanted. */
  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: Init<MessageShape<I>>,
    bounds: Bounds,
  ): Promise<ClientReadableStream<MessageShape<O>>> {
    const metadata = await this.#metadata(bounds);
    this.#throwIfClosed();
    const [path, serialize, deserialize] = wire(method);
    const input = create(method.input, request as MessageInitShape<I>);
    const place = this.#lasting.take();
    const stream = place.channel.makeServerStreamRequest(path, serialize, deserialize, input, metadata, {
      deadline: Date.now() + bounds.deadline.remaining(),
    });
    stream.on("metadata", (headers: Metadata) => tell(bounds, headers));
    stream.on("status", (ended) => tell(bounds, ended.metadata));
    stream.on("error", () => undefined); // its own cancellation, when nobody reads any more
    this.#follow(stream, place);
    return stream;
  }

  /** What a stream that failed this way is to throw. */
  failed(error: ServiceError, bounds: Bounds): unknown {
    return this.#cancelled(bounds) ?? decoded(error);
  }

  #follow(call: { cancel(): void; once(event: "status", listener: () => void): unknown }, place?: Place): void {
    this.#calls.add(call);
    call.once("status", () => {
      this.#calls.delete(call);
      place?.giveBack();
    });
  }

  /** What to throw for a call that was ended from this side. */
  #cancelled(bounds: Bounds): unknown {
    return bounds.signal?.aborted === true ? bounds.signal.reason : this.#closed ? closed() : undefined;
  }

  #throwIfClosed(): void {
    if (this.#closed) {
      throw closed();
    }
  }

  async #metadata(bounds: Bounds): Promise<Metadata> {
    const metadata = new Metadata();
    const given = { ...this.#options.metadata?.(), ...bounds.metadata };
    Object.entries(given).forEach(([name, value]) => put(metadata, name, value));
    if (bounds.noCache === true) {
      metadata.set("cache-control", "no-cache");
    }
    const { token } = this.#options;
    if (token !== undefined) {
      metadata.set("authorization", `Bearer ${await bounds.deadline.limit(valueOf(token), bounds.signal)}`);
    }
    bounds.signal?.throwIfAborted();
    return metadata;
  }
}

function closed(): Error {
  return new Error("This client is closed.");
}

/** Hands what a reply came with to the caller. */
function tell(bounds: Bounds, ...parts: (Metadata | undefined)[]): void {
  const told = Object.fromEntries(
    parts.flatMap((part) => Object.entries(part?.getMap() ?? {})).filter(([, value]) => typeof value === "string"),
  ) as Record<string, string>;
  if (Object.keys(told).length > 0) {
    bounds.onMetadata?.(told);
  }
}

// The errors of grpc-js have the value in their text, and it may be a secret.
function put(metadata: Metadata, name: string, value: string): void {
  try {
    metadata.set(name, value);
  } catch {
    throw new TypeError(`${name} cannot be sent as metadata: names are of a-z 0-9 _ - . and values of printable ASCII.`);
  }
}

async function valueOf(token: NonNullable<ClientOptions["token"]>): Promise<string> {
  let value;
  try {
    value = typeof token === "string" ? token : await token();
  } catch (cause) {
    throw new Unauthenticated("The token function failed; its error is the cause.", status.UNAUTHENTICATED, {}, { cause });
  }
  if (typeof value !== "string" || !/^[\x21-\x7e]+$/.test(value)) {
    const message = "The token is empty or has white space or characters that a header cannot have: trim it, or get another.";
    throw new Unauthenticated(message, status.UNAUTHENTICATED);
  }
  return value;
}

function wire<I extends DescMessage, O extends DescMessage>(
  method: DescMethodUnary<I, O> | DescMethodServerStreaming<I, O>,
): [string, (message: MessageShape<I>) => Buffer, (bytes: Buffer) => MessageShape<O>] {
  return [
    `/${method.parent.typeName}/${method.name}`,
    (message) => Buffer.from(toBinary(method.input, message)),
    (bytes) => fromBinary(method.output, bytes),
  ];
}
