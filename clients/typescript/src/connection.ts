/** Calls over one grpc-js client, with the messages of protobuf-es: deadlines, metadata, cancellation, typed errors. */

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
import { Client, type ClientReadableStream, Metadata, type ServiceError } from "@grpc/grpc-js";

import { channelCredentials, channelOptions, isLoopback } from "./channel.js";
import { decoded } from "./decoding.js";
import type { Deadline } from "./deadline.js";
import type { ClientOptions } from "./options.js";

/** One call: how long it may take, and who may end it. */
export interface Bounds {
  readonly deadline: Deadline;
  readonly signal?: AbortSignal | undefined;
}

export class Connection {
  readonly #client: Client;
  readonly #options: ClientOptions;

  constructor(target: string, options: ClientOptions) {
    if (options.token !== undefined && options.tls === undefined && !isLoopback(target)) {
      throw new TypeError(
        `A token may not be sent to ${target} in the clear: give tls, or a target on this machine.`,
      );
    }
    const settings = channelOptions(target, options.tls, options.userAgent);
    this.#client = new Client(target, channelCredentials(options.tls), settings);
    this.#options = options;
  }

  close(): void {
    this.#client.close();
  }

  /** One call and its answer. `decode` makes the error that is thrown. */
  async unary<I extends DescMessage, O extends DescMessage>(
    method: DescMethodUnary<I, O>,
    request: MessageInitShape<I>,
    bounds: Bounds,
    decode: (error: ServiceError) => Error = decoded,
  ): Promise<MessageShape<O>> {
    const metadata = await this.#metadata();
    bounds.signal?.throwIfAborted();
    const [path, serialize, deserialize] = wire(method);
    return new Promise((resolve, reject) => {
      const aborted = (): void => call.cancel();
      const call = this.#client.makeUnaryRequest(
        path,
        serialize,
        deserialize,
        create(method.input, request),
        metadata,
        { deadline: Date.now() + bounds.deadline.remaining() },
        (error, reply) => {
          bounds.signal?.removeEventListener("abort", aborted);
          if (error === null) {
            resolve(reply as MessageShape<O>);
          } else {
            reject(bounds.signal?.aborted === true ? bounds.signal.reason : decode(error));
          }
        },
      );
      bounds.signal?.addEventListener("abort", aborted, { once: true });
    });
  }

  /** A stream; cancel it when it is no longer wanted. */
  async stream<I extends DescMessage, O extends DescMessage>(
    method: DescMethodServerStreaming<I, O>,
    request: MessageInitShape<I>,
    bounds: Bounds,
  ): Promise<ClientReadableStream<MessageShape<O>>> {
    const metadata = await this.#metadata();
    bounds.signal?.throwIfAborted();
    const [path, serialize, deserialize] = wire(method);
    const deadline = Date.now() + bounds.deadline.remaining();
    const input = create(method.input, request);
    return this.#client.makeServerStreamRequest(path, serialize, deserialize, input, metadata, { deadline });
  }

  async #metadata(): Promise<Metadata> {
    const metadata = new Metadata();
    for (const [name, value] of Object.entries(this.#options.metadata?.() ?? {})) {
      metadata.set(name, value);
    }
    const { token } = this.#options;
    if (token !== undefined) {
      metadata.set("authorization", `Bearer ${typeof token === "string" ? token : await token()}`);
    }
    return metadata;
  }
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
