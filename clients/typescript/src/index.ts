/**
 * Client of the docpreview gateway.
 *
 *     const client = new DocPreviewClient("dns:///docpreview:50051");
 *     const { job, files } = await client.preview("slides.pptx", bucket, "pages");
 */

export { timestampDate, timestampFromDate } from "@bufbuild/protobuf/wkt";
export { status } from "@grpc/grpc-js";
export { DocPreviewClient } from "./client.js";
export type { PageFile } from "./downloading.js";
export * from "./errors.js";
export type * from "./options.js";
export type * from "./requests.js";
export type { RetryAdvice } from "./retry.js";
export * from "./stubs.js";
export { VERSION } from "./version.js";
export type { JobError, JobEvent } from "./watches.js";
export { isTerminal } from "./watching.js";
