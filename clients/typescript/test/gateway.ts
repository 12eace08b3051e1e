/** A gateway that answers with scripted replies in order, and repeats the last one. */

import { create, type DescMethodStreaming, type DescMethodUnary, fromBinary, type Message, toBinary } from "@bufbuild/protobuf";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { Metadata, Server, ServerCredentials, type ServerWritableStream, status } from "@grpc/grpc-js";

import {
  type ClientOptions,
  DocPreviewClient,
  PreviewJob_State,
  PreviewJobSchema,
  PreviewJobService,
  UploadService,
} from "@docpreview/client";
import { BadRequestSchema, ErrorInfoSchema, QuotaFailureSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
import { StatusSchema } from "../src/gen/google/rpc/status_pb.js";

export const BUCKET = "examplebucket-1250000000";
export const running = create(PreviewJobSchema, { bucket: BUCKET, jobId: "d1", state: PreviewJob_State.RUNNING });
export const succeeded = create(PreviewJobSchema, { bucket: BUCKET, jobId: "d1", state: PreviewJob_State.SUCCESS });

export interface Failure {
  code: status;
  details: string;
  metadata?: Metadata;
}

/** What a stream does: messages (null is a heartbeat), then its end; `silent` never ends. */
export interface Stream {
  says: (typeof running | null)[];
  ends?: Failure | "silent";
}

type Answer = Failure | typeof running | "silent" | Stream;

/** What a method does instead of the next answer: a reply (or several, of a stream), or a failure that it throws. */
export type Handler = (request: never, metadata: Metadata) => unknown;

/** An error as the gateway sends it. */
export function failure(code: status, reason: string, delayMs?: number, violations: [string, string][] = [], quota: [string, string][] = []): Failure {
  const details = [
    anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { domain: "docpreview", reason, metadata: { request_id: "req-7" } })),
    anyPack(
      BadRequestSchema,
      create(BadRequestSchema, { fieldViolations: violations.map(([field, description]) => ({ field, description })) }),
    ),
    anyPack(
      QuotaFailureSchema,
      create(QuotaFailureSchema, { violations: quota.map(([subject, description]) => ({ subject, description })) }),
    ),
  ];
  if (delayMs !== undefined) {
    details.push(anyPack(RetryInfoSchema, create(RetryInfoSchema, { retryDelay: durationFromMs(delayMs) })));
  }
  const metadata = new Metadata();
  const rich = create(StatusSchema, { code, message: "scripted", details });
  metadata.set("grpc-status-details-bin", Buffer.from(toBinary(StatusSchema, rich)));
  return { code, details: "scripted", metadata };
}

export class FakeGateway {
  /** The metadata of each call. */
  readonly calls: Metadata[] = [];
  /** Name and request of each call. */
  readonly requests: [string, Message][] = [];
  readonly #server = new Server({ "grpc.max_concurrent_streams": 100 });
  readonly #handlers = new Map<string, Handler>();
  #answers: Answer[] = [];
  #port = 0;

  static async serving(...answers: Answer[]): Promise<FakeGateway> {
    const gateway = new FakeGateway();
    gateway.#answers = answers;
    gateway.#addMethods();
    gateway.#port = await new Promise((resolve, reject) => {
      gateway.#server.bindAsync("127.0.0.1:0", ServerCredentials.createInsecure(), (error, port) =>
        error === null ? resolve(port) : reject(error),
      );
    });
    return gateway;
  }

  get port(): number {
    return this.#port;
  }

  /** Answers a method by a function; a stream gets an array of messages and then ends. */
  on(method: string, handler: Handler): this {
    this.#handlers.set(method, handler);
    return this;
  }

  handler(method: string): Handler | undefined {
    return this.#handlers.get(method);
  }

  asked(method: string): Message[] {
    return this.requests.filter(([name]) => name === method).map(([, request]) => request);
  }

  client(options: ClientOptions = {}): DocPreviewClient {
    return new DocPreviewClient(`127.0.0.1:${this.#port}`, options);
  }

  /** Breaks all connections. */
  stop(): void {
    this.#server.forceShutdown();
  }

  /** Stops as a gateway does: tells the clients to leave, and ends when they have. */
  drain(): void {
    this.#server.tryShutdown(() => undefined);
  }

  #next(): Answer {
    const [answer = "silent"] = this.#answers;
    if (this.#answers.length > 1) {
      this.#answers.shift();
    }
    return answer;
  }

  #answer(name: string, request: Message, metadata: Metadata): unknown {
    this.calls.push(metadata);
    this.requests.push([name, request]);
    const handler = this.#handlers.get(name);
    return handler === undefined ? this.#next() : handler(request as never, metadata);
  }

  #addMethods(): void {
    for (const method of [...PreviewJobService.methods, ...UploadService.methods]) {
      method.methodKind === "unary"
        ? this.#addUnary(method as DescMethodUnary)
        : this.#addStream(method as DescMethodStreaming);
    }
  }

  #addUnary(method: DescMethodUnary): void {
    type Call = { request: Message; metadata: Metadata };
    this.#server.register(
      `/${method.parent.typeName}/${method.name}`,
      async ({ request, metadata }: Call, done: (error: Failure | null, reply?: object, trailer?: Metadata) => void) => {
        try {
          const answer = await this.#answer(method.name, request, metadata);
          if (isFailure(answer)) {
            done(answer);
          } else if (answer !== "silent") {
            const trailer = new Metadata();
            trailer.set("x-request-id", "req-7");
            trailer.set("x-cache", "miss");
            done(null, answer as object, trailer);
          }
        } catch (error) {
          done(isFailure(error) ? error : { code: status.INTERNAL, details: String(error) });
        }
      },
      (reply: object) => Buffer.from(toBinary(method.output, create(method.output, { ...reply }))),
      (bytes: Buffer) => fromBinary(method.input, bytes),
      "unary",
    );
  }

  #addStream(method: DescMethodStreaming): void {
    this.#server.register(
      `/${method.parent.typeName}/${method.name}`,
      (call: ServerWritableStream<Message, object>) => {
        const answer = this.#answer(method.name, call.request, call.metadata) as Stream | object[];
        const says = Array.isArray(answer) ? answer : answer.says.map((job) => (job === null ? {} : { job }));
        const ends = Array.isArray(answer) ? undefined : answer.ends;
        says.forEach((message) => call.write(message));
        if (ends === undefined) {
          call.end();
        } else if (ends !== "silent") {
          call.emit("error", ends);
        }
      },
      (reply: object) => Buffer.from(toBinary(method.output, create(method.output, { ...reply }))),
      (bytes: Buffer) => fromBinary(method.input, bytes),
      "serverStream",
    );
  }
}

function isFailure(answer: unknown): answer is Failure {
  return typeof answer === "object" && answer !== null && "details" in answer;
}
