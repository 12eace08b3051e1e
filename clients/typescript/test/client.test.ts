import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import { once } from "node:events";
import { type AddressInfo, connect, createServer } from "node:net";
import { after, test } from "node:test";

import { InterceptingCall, type Interceptor } from "@grpc/grpc-js";

import {
  BudgetExhausted,
  type ClientOptions,
  type CreatePreviewJobRequest,
  DeadlineExceeded,
  type DocPreviewClient,
  InternalError,
  InvalidRequest,
  type ListPreviewJobsRequest,
  NotFound,
  OutcomeUnknown,
  PermissionDenied,
  type PreviewJob,
  PreviewJob_State,
  status,
  Throttled,
  Unauthenticated,
  Unavailable,
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
  const [client] = await serve([failure(status.INVALID_ARGUMENT, "INVALID_REQUEST", 1500, [["bucket", "is required"]], [["shop", "too much"]])]);
  await assert.rejects(client.create(REQUEST), (error) => {
    assert(error instanceof InvalidRequest);
    assert.equal(error.name, "InvalidRequest");
    assert.equal(error.code, status.INVALID_ARGUMENT);
    assert.deepEqual([error.reason, error.message, error.requestId], ["INVALID_REQUEST", "scripted; bucket: is required", "req-7"]);
    assert.equal(error.retryDelayMs, 1500);
    assert.deepEqual(error.violations, [{ field: "bucket", description: "is required" }]);
    assert.deepEqual(error.quota, [{ subject: "shop", description: "too much" }]);
    assert.equal(error.retry, "never");
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
    [status.UNAVAILABLE, "CREATE_IN_PROGRESS", OutcomeUnknown],
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

test("an error says whether to repeat the call: by its reason in the contract, else by its code", async () => {
  for (const [code, reason, retry] of [
    [status.RESOURCE_EXHAUSTED, "RATE_LIMITED", "now"],
    [status.RESOURCE_EXHAUSTED, "PAGE_BUDGET_EXHAUSTED", "later"],
    [status.RESOURCE_EXHAUSTED, "PAGE_BUDGET_TOO_SMALL", "never"],
    [status.UNAVAILABLE, "OF_A_NEWER_GATEWAY", "never"],
    [status.DEADLINE_EXCEEDED, "", "now"],
    [status.INTERNAL, "", "never"],
  ] as const) {
    const [client] = await serve([failure(code, reason)]);
    await assert.rejects(client.get(BUCKET, "d1"), { retry }, reason);
  }
});

test("a read that a stopping gateway refuses is repeated until another one answers", async () => {
  const [client, gateway] = await serve([...Array<typeof stopping>(6).fill(stopping), running]);
  assert.equal((await client.get(BUCKET, "d1")).jobId, "d1");
  assert.equal(gateway.calls.length, 7);
});

test("a create is made once and without requestId when told so", async () => {
  const [client, gateway] = await serve([stopping]);
  await assert.rejects(client.create(REQUEST, { once: true }), Unavailable);
  assert.deepEqual(gateway.requests.map(([, request]) => (request as CreatePreviewJobRequest).requestId), [""]);
});

test("a create gets a requestId and is repeated with it", async () => {
  const throttled = failure(status.RESOURCE_EXHAUSTED, "UPSTREAM_THROTTLED", 10);
  const [client, gateway] = await serve([stopping, BROKEN, throttled, running]);
  assert.equal((await client.create(REQUEST)).jobId, "d1");
  const ids = gateway.requests.map(([, request]) => (request as CreatePreviewJobRequest).requestId);
  assert.equal(ids.length, 4);
  assert.match(ids[0] ?? "", /^[0-9a-f-]{36}$/);
  assert.deepEqual(new Set(ids).size, 1);
});

test("an unknown outcome is not hidden by a later refusal, and tells the requestId", async () => {
  const [client, gateway] = await serve([BROKEN, stopping], { unaryTimeoutMs: 1000 });
  await assert.rejects(client.create(REQUEST), (error) => {
    assert(error instanceof OutcomeUnknown);
    assert.equal(error.createRequestId, (gateway.requests[0]?.[1] as CreatePreviewJobRequest).requestId);
    return true;
  });
  assert(gateway.calls.length > 1);
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
  await assert.rejects(client.create(REQUEST, { timeoutMs: 500 }), Unavailable);
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

test("a token function that fails makes the call Unauthenticated, at once and with its cause", async () => {
  const cause = new Error("no such file");
  const token = (): never => {
    throw cause;
  };
  const [client, gateway] = await serve([running], { token });
  await assert.rejects(client.create(REQUEST), { name: "Unauthenticated", code: status.UNAUTHENTICATED, cause });
  await assert.rejects(states(client.watch(BUCKET, "d1")), { name: "Unauthenticated", cause });
  await assert.rejects(client.wait(BUCKET, "d1"), { name: "Unauthenticated", cause });
  assert.equal(gateway.calls.length, 0);
});

test("a token function that hangs does not outlast the deadline", async () => {
  const [client] = await serve([running], { token: () => new Promise<string>(() => undefined) });
  await assert.rejects(client.get(BUCKET, "d1", { timeoutMs: 50 }), DeadlineExceeded);
});

test("neither a token nor metadata that cannot be sent is told in the error", async () => {
  const [client] = await serve([running], { token: "secret\nother" });
  await assert.rejects(client.get(BUCKET, "d1"), (error) => error instanceof Unauthenticated && !/secret/.test(String(error)));
  const [other] = await serve([running]);
  const metadata = { "x-key": "secret\n" };
  await assert.rejects(other.get(BUCKET, "d1", { metadata }), (error) => error instanceof TypeError && !/secret/.test(String(error)));
});

test("a call can ask for a fresh answer, send metadata and see that of the reply", async () => {
  const [client, gateway] = await serve([running, failure(status.NOT_FOUND, "JOB_NOT_FOUND")], {
    metadata: () => ({ traceparent: "client", "x-a": "1" }),
  });
  const replies: Record<string, string>[] = [];
  const options = { noCache: true, metadata: { "x-a": "2" }, onMetadata: (reply: object) => replies.push({ ...reply }) };
  await client.get(BUCKET, "d1", options);
  const [sent] = gateway.calls;
  assert.deepEqual(["cache-control", "x-a", "traceparent"].map((name) => sent?.get(name)), [["no-cache"], ["2"], ["client"]]);
  assert.deepEqual([replies[0]?.["x-cache"], replies[0]?.["x-request-id"]], ["miss", "req-7"]);
});

test("interceptors are around every call", async () => {
  const paths: string[] = [];
  const interceptor: Interceptor = (options, nextCall) => {
    paths.push(options.method_definition.path);
    return new InterceptingCall(nextCall(options));
  };
  const [client] = await serve([running], { interceptors: [interceptor] });
  await client.get(BUCKET, "d1");
  assert.deepEqual(paths, ["/docpreview.v1.PreviewJobService/GetPreviewJob"]);
});

test("lists take pages of 100 unless told", async () => {
  const [client, gateway] = await serve([]);
  gateway.on("ListPreviewJobs", () => ({ jobs: [running], nextPageToken: "" }));
  for await (const job of client.list({ bucket: BUCKET })) {
    assert.equal(job.jobId, "d1");
  }
  await client.listPage({ bucket: BUCKET, pageSize: 7 });
  assert.deepEqual(gateway.asked("ListPreviewJobs").map((request) => (request as ListPreviewJobsRequest).pageSize), [100, 7]);
});

test("closing the client ends its calls", async () => {
  const [client, gateway] = await serve(["silent"]);
  gateway.on("WatchPreviewJob", () => ({ says: [running], ends: "silent" }));
  const watch = client.watch(BUCKET, "d1");
  await watch.next();
  const pending = [client.get(BUCKET, "d1"), watch.next()];
  setTimeout(() => client.close(), 100);
  for (const call of pending) {
    await assert.rejects(call, /closed/);
  }
  await assert.rejects(client.get(BUCKET, "d1"), /closed/);
});

test("a client with one address sees no failed call while the gateway behind it is replaced", async () => {
  const [first, second] = [await FakeGateway.serving(running), await FakeGateway.serving(running)];
  let port = first.port;
  const balancer = createServer((incoming) => {
    const outgoing = connect(port, "127.0.0.1");
    incoming.on("error", () => outgoing.destroy());
    outgoing.on("error", () => incoming.destroy());
    incoming.pipe(outgoing).pipe(incoming);
  }).listen(0, "127.0.0.1");
  await once(balancer, "listening");
  const { DocPreviewClient } = await import("@docpreview/client");
  const client = new DocPreviewClient(`127.0.0.1:${(balancer.address() as AddressInfo).port}`);
  stops.push(() => client.close(), () => first.stop(), () => second.stop(), () => balancer.close());
  for (let number = 0; number < 60; number++) {
    if (number === 20) {
      first.on("GetPreviewJob", () => stopping);
      setTimeout(() => {
        port = second.port;
        first.drain();
      }, 300);
    }
    await client.get(BUCKET, "d1");
  }
  assert(second.calls.length > 30);
});
