/** The TypeScript client in the conformance suite: a step in, its result out (tests/conformance/README.md). */

import { readFileSync } from "node:fs";
import { createInterface } from "node:readline";

import {
  type CallOptions,
  type CreateRequest,
  DocPreviewClient,
  DocPreviewError,
  JobFailure_Reason,
  type PageFile,
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
  path?: string;
  object?: string;
  content_type?: string;
  directory?: string;
  job_ids?: string[];
  watches?: number;
  waits?: number;
}

/** What is told of a step beside its error. */
interface Result {
  jobs: PreviewJob[];
  files?: [string, number][];
  uploaded?: { object: string; content_length: number };
  job_errors?: [string, string][];
  busy?: Record<string, number>;
}

type Options = CallOptions & { pageUrlTtlMs: number | undefined };

async function answer(step: Step): Promise<object> {
  const client = new DocPreviewClient(step.target, {
    ...(step.token === null ? {} : { token: step.token }),
    ...(step.tls === null ? {} : { tls: tlsOf(step.tls) }),
  });
  const result: Result = { jobs: [] };
  const told = (error: object | null): object => ({ ...result, jobs: result.jobs.map(toldJob), error });
  try {
    await call(client, step, result);
    return told(null);
  } catch (error) {
    if (!(error instanceof DocPreviewError)) {
      throw error;
    }
    return told(toldError(error));
  } finally {
    client.close();
  }
}

async function call(client: DocPreviewClient, step: Step, result: Result): Promise<void> {
  const { jobs } = result;
  const { bucket, job_id: jobId = "", ...given } = step.with;
  const options: Options = { timeoutMs: step.timeout_ms, pageUrlTtlMs: given.page_url_ttl_ms };
  switch (step.call) {
    case "create":
      jobs.push(await client.create(createRequest(step.with), options));
      return;
    case "create_and_watch":
      return gather(client.createAndWatch(createRequest(step.with), options), jobs);
    case "get":
      jobs.push(await client.get(bucket, jobId, options));
      return;
    case "wait":
      jobs.push(await client.wait(bucket, jobId, options));
      return;
    case "watch":
      return gather(client.watch(bucket, jobId, options), jobs);
    case "list":
      return gather(client.list({ bucket, pageSize: given.page_size }, options), jobs);
    case "preview":
      return preview(client, step.with, options, result);
    case "upload": {
      const sent = { ...options, contentType: given.content_type };
      const { object, contentLength } = await client.upload(given.path ?? "", bucket, given.object, sent);
      result.uploaded = { object, content_length: Number(contentLength) };
      return;
    }
    case "download":
      // A job as it comes from a list: without addresses.
      result.files = await download(client, await client.get(bucket, jobId, { timeoutMs: step.timeout_ms }), step.with, options);
      return;
    case "watch_many":
      result.job_errors = [];
      for await (const { jobId, job, error } of client.watchMany(bucket, given.job_ids ?? [], options)) {
        job === undefined ? result.job_errors.push([jobId, error.reason]) : jobs.push(job);
      }
      return;
    case "busy":
      result.busy = await busy(client, step.with, options);
      return;
    default:
      throw new Error(`${step.call} is not a call of the table`);
  }
}

async function gather(from: AsyncIterable<PreviewJob>, jobs: PreviewJob[]): Promise<void> {
  for await (const job of from) {
    jobs.push(job);
  }
}

async function preview(client: DocPreviewClient, given: Arguments, options: Options, result: Result): Promise<void> {
  const { path = "", bucket, directory = "", object, output_object: output } = given;
  const request = { requestId: given.request_id ?? "", ...(output === undefined ? {} : { output: { object: output } }) };
  const { job, files } = await client.preview(path, bucket, directory, { ...options, object, request });
  result.jobs.push(job);
  result.files = toldFiles(files);
}

async function download(
  client: DocPreviewClient,
  job: PreviewJob,
  { directory = "" }: Arguments,
  options: Options,
): Promise<[string, number][]> {
  return toldFiles(await client.download(job, directory, options));
}

function toldFiles(files: PageFile[]): [string, number][] {
  return files.map(({ name, bytes }) => [name, bytes]);
}

/** Makes gets and creates while many watches and waits are open on the same client. */
async function busy(client: DocPreviewClient, given: Arguments, options: Options): Promise<Record<string, number>> {
  const { bucket, job_id: jobId = "", watches = 0, waits = 0 } = given;
  const brief = { timeoutMs: 10_000 };
  const gets = (): Promise<number[]> => timed(20, () => client.get(bucket, jobId, brief));
  const idle = await gets();
  const ending = new AbortController();
  const lasting = { ...options, signal: ending.signal };
  const waiting = Array.from({ length: waits }, () => client.wait(bucket, jobId, lasting));
  const watching = Array.from({ length: watches }, () => client.watch(bucket, jobId, lasting));
  const first = await Promise.allSettled(watching.map((watch) => watch.next()));
  const beside = await gets();
  const creates = await timed(5, () => client.create(createRequest({ ...given, request_id: "" }), brief));
  ending.abort();
  await Promise.allSettled([...waiting, ...watching.map((watch) => watch.next())]);
  return {
    watches: first.filter(({ status: settled }) => settled === "fulfilled").length,
    gets: beside.length,
    creates: creates.length,
    get_ms: median(beside),
    idle_get_ms: median(idle),
  };
}

/** Milliseconds of each of the calls, one after the other, that succeeded. */
async function timed(calls: number, made: () => Promise<unknown>): Promise<number[]> {
  const took: number[] = [];
  for (let number = 0; number < calls; number++) {
    const from = performance.now();
    try {
      await made();
      took.push(performance.now() - from);
    } catch (error) {
      console.error(error);
    }
  }
  return took;
}

function median(values: number[]): number {
  return [...values].sort((one, other) => one - other)[Math.floor(values.length / 2)] ?? 0;
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
    failure_reason: job.failure === undefined ? "" : (JobFailure_Reason[job.failure.reason] ?? ""),
  };
}

/** What the gateway said, without the violations that the client adds. */
function sentenceOf(error: DocPreviewError): string {
  const { details } = (error.cause ?? {}) as { details?: string };
  return details || error.message;
}

function toldError(error: DocPreviewError): object {
  return {
    kind: error.name === "BudgetExhausted" ? "Throttled" : error.name, // a kind of it
    code: status[error.code],
    reason: error.reason,
    message: sentenceOf(error),
    violations: error.violations.map(({ field, description }) => [field, description]),
    retry: error.retry,
    quota: error.quota.map(({ subject, description }) => [subject, description]),
    retry_delay_ms: error.retryDelayMs ?? null,
    metadata: error.metadata,
    request_id: error.requestId,
  };
}

for await (const line of createInterface({ input: process.stdin })) {
  process.stdout.write(`${JSON.stringify(await answer(JSON.parse(line) as Step))}\n`);
}
