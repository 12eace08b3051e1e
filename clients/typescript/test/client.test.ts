import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { after, test } from "node:test";

import {
  BudgetExhausted,
  type ClientOptions,
  DeadlineExceeded,
  type DocPreviewClient,
  DocPreviewError,
  InternalError,
  InvalidRequest,
  NotFound,
  OutcomeUnknown,
  PermissionDenied,
  type PreviewJob,
  PreviewJob_State,
  status,
  Throttled,
  Unauthenticated,
  Unavailable,
  VERSION,
} from "@docpreview/client";

import { isLoopback } from "../src/channel.js";
import { BUCKET, failure, FakeGateway, running, succeeded } from "./gateway.js";

const REQUEST = { bucket: BUCKET, inputObject: "a" };
const BROKEN = { code: status.UNAVAILABLE, details: "Connection dropped" };
const stopping = failure(status.UNAVAILABLE, "SHUTTING_DOWN");

const stops: (() => void)[] = [];
after(() => stops.forEach((stop) => stop()));

type Answers = Parameters<typeof FakeGateway.serving>;

async function serve(answers: Answers, options: ClientOptions = {}): Promise<[DocPreviewClient, FakeGateway]> {
  const gateway = await FakeGateway.serving(...answers);
  const client = gateway.client(options);
  stops.push(() => client.close(), () => gateway.stop());
  return [client, gateway];
}

async function states(jobs: AsyncIterable<PreviewJob>): Promise<string[]> {
  const seen: string[] = [];
  for await (const job of jobs) {
    seen.push(PreviewJob_State[job.state]);
  }
  return seen;
}

test("an error has everything that the gateway said", async () => {
  const [client] = await serve([failure(status.INVALID_ARGUMENT, "INVALID_REQUEST", 1500, [["bucket", "is required"]])]);
  await assert.rejects(client.create(REQUEST), (error) => {
    assert(error instanceof InvalidRequest);
    assert.equal(error.name, "InvalidRequest");
    assert.equal(error.code, status.INVALID_ARGUMENT);
    assert.deepEqual([error.reason, error.message, error.requestId], ["INVALID_REQUEST", "scripted", "req-7"]);
    assert.equal(error.retryDelayMs, 1500);
    assert.deepEqual(error.violations, [{ field: "bucket", description: "is required" }]);
    return true;
  });
});

test("the class says what to do", async () => {
  for (const [code, reason, kind] of [
    [status.NOT_FOUND, "JOB_NOT_FOUND", NotFound],
    [status.UNAUTHENTICATED, "UNAUTHENTICATED", Unauthenticated],
    [status.PERMISSION_DENIED, "NOT_PERMITTED", PermissionDenied],
    [status.RESOURCE_EXHAUSTED, "RATE_LIMITED", Throttled],
    [status.RESOURCE_EXHAUSTED, "REPLY_TOO_LARGE", InvalidRequest],
    [status.RESOURCE_EXHAUSTED, "PAGE_BUDGET_EXHAUSTED", BudgetExhausted],
    [status.RESOURCE_EXHAUSTED, "PAGE_BUDGET_EXHAUSTED", Throttled],
    [status.RESOURCE_EXHAUSTED, "PAGE_BUDGET_TOO_SMALL", BudgetExhausted],
    [status.UNKNOWN, "CREATE_OUTCOME_AMBIGUOUS", OutcomeUnknown],
    [status.ALREADY_EXISTS, "REQUEST_ID_REUSED", InvalidRequest],
    [status.INTERNAL, "INTERNAL", InternalError],
  ] as const) {
    const [client] = await serve([failure(code, reason)]);
    await assert.rejects(client.get(BUCKET, "d1"), (error) => error instanceof kind && error.reason === reason);
  }
});

test("details that cannot be read do not hide the error", async () => {
  const garbage = failure(status.NOT_FOUND, "");
  garbage.metadata?.set("grpc-status-details-bin", Buffer.from([255, 255]));
  const [client] = await serve([garbage]);
  await assert.rejects(client.get(BUCKET, "d1"), NotFound);
});

test("a read is repeated while the gateway is away", async () => {
  const [client, gateway] = await serve([stopping, { code: status.CANCELLED, details: "" }, running]);
  assert.equal((await client.get(BUCKET, "d1")).jobId, "d1");
  assert.equal(gateway.calls.length, 3);
});

test("a create without requestId is made once", async () => {
  const [client, gateway] = await serve([stopping]);
  await assert.rejects(client.create(REQUEST), Unavailable);
  assert.equal(gateway.calls.length, 1);
});

test("a create with requestId is repeated", async () => {
  const [client, gateway] = await serve([stopping, BROKEN, running]);
  assert.equal((await client.create({ ...REQUEST, requestId: randomUUID() })).jobId, "d1");
  assert.equal(gateway.calls.length, 3);
});

test("an unknown outcome is not hidden by a later refusal", async () => {
  const [client, gateway] = await serve([BROKEN, stopping]);
  await assert.rejects(client.create({ ...REQUEST, requestId: randomUUID() }), OutcomeUnknown);
  assert.equal(gateway.calls.length, 5);
});

test("a delay beyond the deadline ends a create immediately", async () => {
  const [client, gateway] = await serve([failure(status.UNKNOWN, "CREATE_OUTCOME_UNKNOWN", 120_000)]);
  await assert.rejects(client.create({ ...REQUEST, requestId: randomUUID() }), OutcomeUnknown);
  assert.equal(gateway.calls.length, 1);
});

test("a create beyond the budget is not repeated", async () => {
  for (const [reason, retryDelayMs] of [["PAGE_BUDGET_EXHAUSTED", 1], ["PAGE_BUDGET_TOO_SMALL", undefined]] as const) {
    const [client, gateway] = await serve([failure(status.RESOURCE_EXHAUSTED, reason, retryDelayMs)]);
    await assert.rejects(client.create({ ...REQUEST, requestId: randomUUID() }), { name: "BudgetExhausted", reason, retryDelayMs });
    assert.equal(gateway.calls.length, 1);
  }
});

test("a create whose outcome is ambiguous is not repeated", async () => {
  const [client, gateway] = await serve([BROKEN, failure(status.UNKNOWN, "CREATE_OUTCOME_AMBIGUOUS")]);
  const ambiguous = { name: "OutcomeUnknown", reason: "CREATE_OUTCOME_AMBIGUOUS" };
  await assert.rejects(client.create({ ...REQUEST, requestId: randomUUID() }), ambiguous);
  assert.equal(gateway.calls.length, 2);
});

test("a broken or late create leaves its outcome open, one that is never sent does not", async () => {
  for (const answer of [BROKEN, "silent"] as const) {
    const [client] = await serve([answer], { unaryTimeoutMs: 300 });
    await assert.rejects(client.create(REQUEST), (error) => error instanceof OutcomeUnknown);
  }
  const [client, gateway] = await serve([running]);
  gateway.stop();
  await assert.rejects(client.create(REQUEST), Unavailable);
});

test("deadline", async () => {
  const [client] = await serve(["silent"]);
  await assert.rejects(client.get(BUCKET, "d1", { timeoutMs: 100 }), DeadlineExceeded);
});

test("an aborted call throws the signal's reason", async () => {
  const [client] = await serve(["silent"]);
  await assert.rejects(client.get(BUCKET, "d1", { signal: AbortSignal.timeout(50) }), { name: "TimeoutError" });
  const [watching] = await serve([{ says: [running], ends: "silent" }]);
  await assert.rejects(states(watching.watch(BUCKET, "d1", { signal: AbortSignal.timeout(200) })), { name: "TimeoutError" });
});

test("a watch goes on over broken streams", async () => {
  const [client, gateway] = await serve([
    { says: [running, null], ends: failure(status.UNAVAILABLE, "SHUTTING_DOWN", 10) },
    { says: [running], ends: BROKEN },
    { says: [running, succeeded] },
  ]);
  assert.deepEqual(await states(client.watch(BUCKET, "d1")), ["RUNNING", "SUCCESS"]);
  assert.equal(gateway.calls.length, 3);
});

test("a silent stream is replaced, also after the last state", async () => {
  const [client, gateway] = await serve([{ says: [running], ends: "silent" }, { says: [succeeded], ends: "silent" }], {
    idleMs: 100,
  });
  assert.deepEqual(await states(client.watch(BUCKET, "d1")), ["RUNNING", "SUCCESS"]);
  assert.equal(gateway.calls.length, 2);
});

test("a watch ends at its deadline and with errors that last", async () => {
  const [missing] = await serve([{ says: [], ends: failure(status.NOT_FOUND, "JOB_NOT_FOUND") }]);
  await assert.rejects(states(missing.watch(BUCKET, "d1")), NotFound);
  const [away] = await serve([{ says: [], ends: failure(status.UNAVAILABLE, "UPSTREAM_UNAVAILABLE", 60_000) }]);
  await assert.rejects(states(away.watch(BUCKET, "d1", { timeoutMs: 200 })), DeadlineExceeded);
});

test("a reader may leave", async () => {
  const [client] = await serve([{ says: [running], ends: "silent" }]);
  for await (const job of client.watch(BUCKET, "d1")) {
    assert.equal(job.jobId, "d1");
    break;
  }
});

test("the token is asked for every call, and never sent in the clear", async () => {
  let asked = 0;
  const token = async (): Promise<string> => `x${++asked}`;
  const [client, gateway] = await serve([running], { token });
  await client.get(BUCKET, "d1");
  await client.get(BUCKET, "d1");
  assert.deepEqual(gateway.calls.map((sent) => sent.get("authorization")), [["Bearer x1"], ["Bearer x2"]]);
  const { DocPreviewClient } = await import("@docpreview/client");
  assert.throws(() => new DocPreviewClient("dns:///gateway.example:50051", { token }), TypeError);
  for (const [target, local] of [
    ["127.0.0.1:1", true],
    ["dns:///localhost:1", true],
    ["[::1]:1", true],
    ["::1", true],
    ["unix:/tmp/x", true],
    ["10.0.0.1:1", false],
    ["localhost.example:1", false],
  ] as const) {
    assert.equal(isLoopback(target), local, target);
  }
});

test("the version is the package's", () => {
  const manifest = JSON.parse(readFileSync(new URL("../../package.json", import.meta.url), "utf8")) as { version: string };
  assert.equal(VERSION, manifest.version);
  assert.equal(DocPreviewError.name, "DocPreviewError");
});
