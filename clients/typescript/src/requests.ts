/** The requests that callers fill in, and what the client makes of a file's name. */

import { basename, extname } from "node:path";

import type { Duration } from "@bufbuild/protobuf/wkt";
import { durationFromMs } from "@bufbuild/protobuf/wkt";

import { PreviewOptions_TargetFormat } from "./gen/docpreview/v1/preview_job_pb.js";
import type { CreatePreviewJobRequest, ListPreviewJobsRequest } from "./gen/docpreview/v1/preview_job_service_pb.js";
import type { ListPreviewQueuesRequest } from "./gen/docpreview/v1/preview_queue_service_pb.js";
import type { Init } from "./init.js";
import type { PageUrlOptions } from "./options.js";

/** Fields of a create, as a plain object. */
export interface CreateRequest extends Init<CreatePreviewJobRequest> {}
/** Which jobs are listed, and how. */
export interface ListRequest extends Init<ListPreviewJobsRequest> {}
/** Which queues are listed. */
export interface ListQueuesRequest extends Init<ListPreviewQueuesRequest> {}

/** A document to upload: the path of a file, or its bytes. */
export type Source = string | Uint8Array;

const SPREADSHEETS: ReadonlySet<string> = new Set(["xls", "xlsx", "xlsm", "xlt", "xltx", "xltm", "csv", "et", "ett"]);

/** What the key of an upload may have: it becomes 32 hexadecimal digits. */
export const UPLOAD_ID = "${UploadId}";

/** Where a document goes by default. Throws a TypeError for bytes, which have no name. */
export function defaultObject(source: Source): string {
  if (typeof source !== "string") {
    throw new TypeError("Bytes have no name: give the object to upload them to, such as in/${UploadId}.pptx.");
  }
  const suffix = suffixOf(basename(source));
  return suffix === "" ? `in/${UPLOAD_ID}` : `in/${UPLOAD_ID}.${suffix}`;
}

/** Where the pages of a document go by default. */
export function defaultOutput(inputObject: string, options: CreateRequest["options"]): string {
  const suffixes: Partial<Record<PreviewOptions_TargetFormat, string>> = {
    [PreviewOptions_TargetFormat.PNG]: "png",
    [PreviewOptions_TargetFormat.PDF]: "pdf",
  };
  const kind = options?.sourceFormat || suffixOf(inputObject);
  const sheet = SPREADSHEETS.has(kind) ? "sheet-${SheetID}/" : "";
  const suffix = suffixes[options?.targetFormat ?? PreviewOptions_TargetFormat.UNSPECIFIED] ?? "jpg";
  return `out/\${RequestToken}/${sheet}page-\${Number}.${suffix}`;
}

/** A short suffix of a name, in lower case and without its dot; empty when there is none. */
export function suffixOf(name: string): string {
  const suffix = extname(name).slice(1).toLowerCase();
  return /^[a-z0-9]{1,10}$/.test(suffix) ? suffix : "";
}

/** The field `pageUrlTtl` of a request, when the options ask for addresses. */
export function pageUrlTtl(options: PageUrlOptions): { pageUrlTtl?: Duration } {
  return options.pageUrlTtlMs === undefined ? {} : { pageUrlTtl: durationFromMs(options.pageUrlTtlMs) };
}
