/** The TypeScript client in the conformance suite: a step in, its result out (tests/conformance/README.md). */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import {
  type CallOptions,
  type CreateRequest,
  DocPreviewClient,
  DocPreviewError,
  type PreviewJob,
  PreviewJob_State,
  status,
  type Tls,
} from "@docpreview/client";

interface Step {
  target: string;
  call: string;
  timeout_ms: number;
  with: Arguments;
  token: string | null;
  tls: { root_certificates: string; certificate_chain?: string; private_key?: string } | null;
}

interface Arguments {
  bucket: string;
  input_object?: string;
  output_object?: string;
  request_id?: string;
  user_data?: string;
  job_id?: string;
  start_page?: number;
  end_page?: number;
  page_size?: number;
  page_url_ttl_ms?: number;
}

async function answer(step: Step): Promise<object> {
  const client = new DocPreviewClient(step.target, {
    ...(step.token === null ? {} : { token: step.token }),
    ...(step.tls === null ? {} : { tls: tlsOf(step.tls) }),
  });
  const jobs: PreviewJob[] = [];
  try {
    for await (const job of call(client, step)) {
      jobs.push(job);
    }
    return { jobs: jobs.map(toldJob), error: null };
  } catch (error) {
    if (!(error instanceof DocPreviewError)) {
      throw error;
    }
    return { jobs: jobs.map(toldJob), error: toldError(error) };
  } finally {
    client.close();
  }
}

async function* call(client: DocPreviewClient, step: Step): AsyncGenerator<PreviewJob> {
  const given = step.with;
  const jobId = given.job_id ?? "";
  const options: CallOptions & { pageUrlTtlMs: number | undefined } = {
    timeoutMs: step.timeout_ms,
    pageUrlTtlMs: given.page_url_ttl_ms,
  };
  switch (step.call) {
    case "create":
      return yield await client.create(createRequest(given), options);
    case "create_and_watch":
      return yield* client.createAndWatch(createRequest(given), options);
    case "get":
      return yield await client.get(given.bucket, jobId, options);
    case "wait":
      return yield await client.wait(given.bucket, jobId, options);
    case "watch":
      return yield* client.watch(given.bucket, jobId, options);
    case "list":
      return yield* client.list({ bucket: given.bucket, pageSize: given.page_size ?? 0 }, options);
    default:
      throw new Error(`${step.call} is not a call of the table`);
  }
}

function createRequest(given: Arguments): CreateRequest {
  const { start_page: startPage, end_page: endPage } = given;
  const pages = { ...(startPage === undefined ? {} : { startPage }), ...(endPage === undefined ? {} : { endPage }) };
  return {
    bucket: given.bucket,
    inputObject: given.input_object ?? "",
    output: { object: given.output_object ?? "" },
    requestId: given.request_id ?? "",
    userData: given.user_data ?? "",
    ...(Object.keys(pages).length === 0 ? {} : { options: pages }),
  };
}

function tlsOf(paths: NonNullable<Step["tls"]>): Tls {
  return {
    rootCertificates: readFileSync(paths.root_certificates),
    ...(paths.certificate_chain === undefined ? {} : { certificateChain: readFileSync(paths.certificate_chain) }),
    ...(paths.private_key === undefined ? {} : { privateKey: readFileSync(paths.private_key) }),
  };
}

function toldJob(job: PreviewJob): object {
  return {
    job_id: job.jobId,
    state: PreviewJob_State[job.state],
    page_count: job.result?.totalPageCount ?? 0,
    page_urls: job.result?.pages.filter((page) => page.url !== "").length ?? 0,
  };
}

function toldError(error: DocPreviewError): object {
  return {
    kind: error.name,
    code: status[error.code],
    reason: error.reason,
    message: error.message,
    violations: error.violations.map(({ field, description }) => [field, description]),
    retry_delay_ms: error.retryDelayMs ?? null,
    metadata: error.metadata,
    request_id: error.requestId,
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line) as Step))}\n`);
}
