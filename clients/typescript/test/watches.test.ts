import assert from "node:assert/strict";
import { EventEmitter, once } from "node:events";
import { after, test } from "node:test";

import { create } from "@bufbuild/protobuf";
import type { Client } from "@grpc/grpc-js";

import {
  ErrorReason,
  type JobEvent,
  type PreviewJob,
  PreviewJob_State,
  PreviewJobSchema,
  status,
  type WatchPreviewJobsRequest,
} from "@docpreview/client";

import { StreamPool } from "../src/pool.js";
import { BUCKET, failure, FakeGateway, running } from "./gateway.js";

const stops: (() => void)[] = [];
after(() => stops.forEach((stop) => stop()));

function job(jobId: string, state: PreviewJob_State): { event: { case: "job"; value: PreviewJob } } {
  return { event: { case: "job", value: create(PreviewJobSchema, { bucket: BUCKET, jobId, state }) } };
}

const { RUNNING, SUCCESS } = PreviewJob_State;
const heartbeat = { event: { case: "heartbeat", value: {} } };

async function serve(watch: (request: WatchPreviewJobsRequest) => object): Promise<[ReturnType<FakeGateway["client"]>, FakeGateway]> {
  const gateway = (await FakeGateway.serving(running)).on("WatchPreviewJobs", watch);
  const client = gateway.client();
  stops.push(() => client.close(), () => gateway.stop());
  return [client, gateway];
}

async function told(events: AsyncIterable<JobEvent>): Promise<string[]> {
  const all = [];
  for await (const { jobId, job, error } of events) {
    all.push(`${jobId} ${job === undefined ? error.reason : PreviewJob_State[job.state]}`);
  }
  return all;
}

test("many jobs come in one stream: each change once, and the errors of single jobs", async () => {
  const missing = { jobId: "d3", reason: ErrorReason.JOB_NOT_FOUND, message: "no job" };
  const events = [job("d1", RUNNING), { event: { case: "error", value: missing } }, heartbeat, job("d1", RUNNING), job("d2", SUCCESS), job("d1", SUCCESS)];
  const [client, gateway] = await serve(() => events);
  const seen = await told(client.watchMany(BUCKET, ["d1", "d2", "d3", "d1"]));
  assert.deepEqual(seen, ["d1 RUNNING", "d3 JOB_NOT_FOUND", "d2 SUCCESS", "d1 SUCCESS"]);
  assert.deepEqual((gateway.asked("WatchPreviewJobs")[0] as WatchPreviewJobsRequest).jobIds, ["d1", "d2", "d3"]);
});

test("a broken watch of many goes on with the jobs that have not ended", async () => {
  const streams: object[] = [
    { says: [], ends: failure(status.UNAVAILABLE, "SHUTTING_DOWN", 10) },
    [job("d1", SUCCESS), job("d2", RUNNING)],
    [job("d2", RUNNING), job("d2", SUCCESS)],
  ];
  const [client, gateway] = await serve(() => streams.shift() ?? []);
  assert.deepEqual(await told(client.watchMany(BUCKET, ["d1", "d2"])), ["d1 SUCCESS", "d2 RUNNING", "d2 SUCCESS"]);
  const asked = gateway.asked("WatchPreviewJobs") as WatchPreviewJobsRequest[];
  assert.deepEqual(asked.map(({ jobIds }) => jobIds), [["d1", "d2"], ["d1", "d2"], ["d2"]]);
});

test("more jobs than a stream can have are watched over several, and a reader may leave", async () => {
  const ids = Array.from({ length: 2500 }, (_, number) => `d${number}`);
  const [client, gateway] = await serve(({ jobIds }) => jobIds.map((jobId) => job(jobId, SUCCESS)));
  assert.equal((await told(client.watchMany(BUCKET, ids))).length, 2500);
  const asked = gateway.asked("WatchPreviewJobs") as WatchPreviewJobsRequest[];
  assert.deepEqual(asked.map(({ jobIds }) => jobIds.length).sort(), [1000, 1000, 500]);
  for await (const { job } of client.watchMany(BUCKET, ids)) {
    assert(job !== undefined);
    break;
  }
});

test("an error of the whole watch is thrown, as is the deadline", async () => {
  const [client] = await serve(() => ({ says: [], ends: failure(status.PERMISSION_DENIED, "NOT_PERMITTED") }));
  await assert.rejects(told(client.watchMany(BUCKET, ["d1"])), { name: "PermissionDenied" });
  const [late] = await serve(() => ({ says: [null], ends: "silent" }));
  await assert.rejects(told(late.watchMany(BUCKET, ["d1"], { timeoutMs: 200 })), { name: "DeadlineExceeded" });
});

test("250 watches and waits leave other calls of the client alone", async () => {
  const gateway = (await FakeGateway.serving(running)).on("WatchPreviewJob", () => ({ says: [running], ends: "silent" }));
  gateway.on("WaitPreviewJob", () => "silent");
  const client = gateway.client();
  stops.push(() => client.close(), () => gateway.stop());
  const ending = new AbortController();
  const options = { signal: ending.signal };
  const watches = Array.from({ length: 125 }, () => client.watch(BUCKET, "d1", options));
  const waits = Array.from({ length: 125 }, () => client.wait(BUCKET, "d1", options));
  await Promise.all(watches.map((watch) => watch.next()));
  assert.equal((await client.get(BUCKET, "d1", { timeoutMs: 5000 })).jobId, "d1");
  assert.equal((await client.create({ bucket: BUCKET, inputObject: "a" }, { timeoutMs: 5000 })).jobId, "d1");
  ending.abort();
  await Promise.allSettled([...waits, ...watches.map((watch) => watch.next())]);
});

test("connections of watches are filled one after the other, used again, and closed when nothing is on them", async () => {
  let closed = 0;
  const closing = new EventEmitter();
  const close = (): void => {
    closed++;
    closing.emit("closed");
  };
  const pool = new StreamPool(() => ({ close }) as unknown as Client, 1);
  const places = Array.from({ length: 181 }, () => pool.take());
  assert.equal(pool.size, 3);
  places[0]?.giveBack();
  places[0]?.giveBack();
  const again = pool.take();
  assert.equal(again.channel, places[0]?.channel);
  assert.equal(pool.take().channel, places[180]?.channel);
  const idle = once(closing, "closed");
  places.slice(90, 180).forEach(({ giveBack }) => giveBack());
  await idle;
  assert.deepEqual([pool.size, closed], [2, 1]);
  pool.close();
  assert.deepEqual([pool.size, closed], [0, 3]);
});
