/**
 * Client of the docpreview gateway.
 *
 *     const client = new DocPreviewClient("dns:///docpreview:50051");
 *     for await (const job of client.createAndWatch({ bucket, inputObject, output: { object } })) ...
 */

export { status } from "@grpc/grpc-js";
export * from "./client.js";
export * from "./errors.js";
export * from "./gen/docpreview/v1/error_reason_pb.js";
export * from "./gen/docpreview/v1/preview_job_pb.js";
export * from "./gen/docpreview/v1/preview_job_service_pb.js";
export * from "./gen/docpreview/v1/preview_queue_service_pb.js";
export * from "./gen/docpreview/v1/usage_service_pb.js";
export type * from "./options.js";
export { VERSION } from "./version.js";
export { isTerminal } from "./watching.js";
