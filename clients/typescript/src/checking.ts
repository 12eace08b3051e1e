/** What is refused before anything is sent: arguments that the types let through and that mean nothing. */

import { status } from "@grpc/grpc-js";

import { InvalidRequest } from "./errors.js";
import type { DownloadOptions } from "./options.js";

const UUID = /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/i;
const [SHORTEST_TTL_MS, LONGEST_TTL_MS] = [1000, 3_600_000];

export function refusal(message: string): InvalidRequest {
  return new InvalidRequest(message, status.INVALID_ARGUMENT);
}

export function checkId(requestId: string): void {
  if (!UUID.test(requestId)) {
    throw refusal(`requestId must be a UUID, such as 7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10, not ${JSON.stringify(requestId)}`);
  }
}

/** A text is an iterable of texts too: its letters. */
export function checkIds(jobIds: unknown): void {
  if (typeof jobIds === "string") {
    throw refusal("jobIds must be a list of ids, not a text");
  }
}

export function checkTimeout(timeoutMs: number): void {
  if (Number.isNaN(timeoutMs)) {
    throw refusal("timeoutMs is not a number");
  }
}

export function checkDownload(directory: string, { concurrency = 1, pageUrlTtlMs = SHORTEST_TTL_MS }: DownloadOptions): void {
  if (directory === "") {
    throw refusal("the name of the directory is empty");
  }
  if (!Number.isInteger(concurrency) || concurrency < 1) {
    throw refusal(`concurrency must be a whole number from 1, not ${concurrency}`);
  }
  if (!(pageUrlTtlMs >= SHORTEST_TTL_MS && pageUrlTtlMs <= LONGEST_TTL_MS)) {
    throw refusal(`pageUrlTtlMs must be ${SHORTEST_TTL_MS} to ${LONGEST_TTL_MS}, not ${pageUrlTtlMs}`);
  }
}
