/** A gateway that answers with scripted replies in order, and repeats the last one. */

import { create, fromBinary, toBinary } from "@bufbuild/protobuf";
import { anyPack, durationFromMs } from "@bufbuild/protobuf/wkt";
import { Metadata, Server, ServerCredentials, type ServerWritableStream, status } from "@grpc/grpc-js";

import { type ClientOptions, DocPreviewClient, PreviewJob_State, PreviewJobSchema, PreviewJobService } from "@docpreview/client";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema } from "../src/gen/google/rpc/error_details_pb.js";
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

/** An error as the gateway sends it. */
export function failure(code: status, reason: string, delayMs?: number, violations: [string, string][] = []): Failure {
  const details = [
    anyPack(ErrorInfoSchema, create(ErrorInfoSchema, { domain: "docpreview", reason, metadata: { request_id: "req-7" } })),
    anyPack(
      BadRequestSchema,
      create(BadRequestSchema, { fieldViolations: violations.map(([field, description]) => ({ field, description })) }),
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
  readonly calls: Metadata[] = [];
  readonly #server = new Server();
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

  client(options: ClientOptions = {}): DocPreviewClient {
    return new DocPreviewClient(`127.0.0.1:${this.#port}`, options);
  }

  stop(): void {
    this.#server.forceShutdown();
  }

  #next(metadata: Metadata): Answer {
    this.calls.push(metadata);
    const [answer = "silent"] = this.#answers;
    if (this.#answers.length > 1) {
      this.#answers.shift();
    }
    return answer;
  }

  #addMethods(): void {
    const { createPreviewJob, getPreviewJob, watchPreviewJob } = PreviewJobService.method;
    for (const method of [createPreviewJob, getPreviewJob]) {
      this.#server.register(
        `/${method.parent.typeName}/${method.name}`,
        (call: { metadata: Metadata }, done: (error: Failure | null, reply?: typeof running) => void) => {
          const answer = this.#next(call.metadata);
          if (answer !== "silent") {
            "code" in answer ? done(answer) : done(null, answer as typeof running);
          }
        },
        (reply: typeof running) => Buffer.from(toBinary(PreviewJobSchema, reply)),
        (bytes: Buffer) => fromBinary(method.input, bytes),
        "unary",
      );
    }
    this.#server.register(
      `/${watchPreviewJob.parent.typeName}/${watchPreviewJob.name}`,
      (call: ServerWritableStream<object, object>) => {
        const { says, ends } = this.#next(call.metadata) as Stream;
        says.forEach((job) => call.write(job === null ? {} : { job }));
        if (ends === undefined) {
          call.end();
        } else if (ends !== "silent") {
          call.emit("error", ends);
        }
      },
      (reply: object) => Buffer.from(toBinary(watchPreviewJob.output, create(watchPreviewJob.output, reply))),
      (bytes: Buffer) => fromBinary(watchPreviewJob.input, bytes),
      "serverStream",
    );
  }
}
