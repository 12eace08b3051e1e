/**
 * The messages and services of docpreview.v1 alone. This entry needs nothing of Node.js: browsers use it with a gRPC-Web
 * or Connect transport, such as `@connectrpc/connect-web`.
 */

export { toJson } from "@bufbuild/protobuf";
export * from "./gen/docpreview/v1/error_reason_pb.js";
export * from "./gen/docpreview/v1/preview_job_pb.js";
export * from "./gen/docpreview/v1/preview_job_service_pb.js";
export * from "./gen/docpreview/v1/preview_queue_service_pb.js";
export * from "./gen/docpreview/v1/upload_service_pb.js";
export * from "./gen/docpreview/v1/usage_service_pb.js";
