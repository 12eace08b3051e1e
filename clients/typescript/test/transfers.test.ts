import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { createHash } from "node:crypto";
import { readdirSync, rmSync, watch } from "node:fs";
import { appendFile, mkdtemp, readdir, readFile, rm, stat, symlink, utimes, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";

import {
  type CreatePreviewJobRequest,
  type CreateUploadRequest,
  type DocPreviewClient,
  type DocPreviewError,
  type GetPreviewJobRequest,
  OutcomeUnknown,
  type PageFile,
  type PreviewCallOptions,
  type PreviewJob,
  PreviewJob_State,
  PreviewJobSchema,
  PreviewOptions_TargetFormat,
  PreviewUnfinished,
  type Progress,
  status,
} from "@docpreview/client";

import { Deadline } from "../src/deadline.js";
import { downloaded } from "../src/downloading.js";
import { Storage } from "../src/transfer.js";
import { BUCKET, failure, FakeGateway, running } from "./gateway.js";
import { FakeStorage, type Reply, serveContent } from "./storage.js";

const CONTENT = Buffer.from("0123456789");
const LATER = timestampFromMs(Date.now() + 900_000);
const PAST = timestampFromMs(Date.now() - 1000);

const stops: (() => unknown)[] = [];
after(async () => {
  for (const stop of stops) {
    await stop();
  }
});

async function scratch(): Promise<string> {
  const directory = await mkdtemp(join(tmpdir(), "docpreview-"));
  stops.push(() => rm(directory, { recursive: true, force: true }));
  return directory;
}

async function world(reply: Reply): Promise<{ client: DocPreviewClient; gateway: FakeGateway; storage: FakeStorage }> {
  const [storage, gateway] = [await FakeStorage.serving(reply), await FakeGateway.serving()];
  const client = gateway.client();
  stops.push(() => client.close(), () => gateway.stop(), () => storage.stop());
  return { client, gateway, storage };
}

/** Answers uploads: parts of the given length, and addresses that expire at the given times, one after the other. */
function takesUploads(gateway: FakeGateway, storage: FakeStorage, partLength: number, ...expiries: (typeof LATER)[]): void {
  gateway.on("CreateUpload", ({ bucket, object, contentLength }: CreateUploadRequest) => {
    const parts = [];
    for (let offset = 0; offset < Number(contentLength); offset += partLength) {
      const length = Math.min(partLength, Number(contentLength) - offset);
      const headers = { host: storage.host, "content-length": String(length), "content-type": "text/x-part" };
      parts.push({ url: storage.url(`part-${offset}`), headers, offset: BigInt(offset), length: BigInt(length) });
    }
    const named = object.replace("${UploadId}", "0a1b");
    gateway.on("CompleteUpload", () => ({ bucket, object: named, contentLength, etag: '"whole"' }));
    return { bucket, object: named, uploadToken: "token", parts, expireTime: expiries.shift() ?? LATER };
  });
  gateway.on("AbortUpload", () => ({}));
}

const takesParts: Reply = (sent, response) => {
  response.writeHead(200, { etag: `"${sent.body.toString()}"` }).end();
};

test("a small file goes up in one request with exactly the signed headers", async () => {
  const { client, gateway, storage } = await world(takesParts);
  takesUploads(gateway, storage, 100);
  const path = join(await scratch(), "Notes.TXT");
  await writeFile(path, CONTENT);
  const { object } = await client.upload(path, BUCKET);
  assert.equal(object, "in/0a1b.txt");
  const [request] = gateway.asked("CreateUpload") as CreateUploadRequest[];
  assert.deepEqual([request?.object, request?.contentLength], ["in/${UploadId}.txt", 10n]);
  assert.deepEqual(Buffer.from(request?.contentMd5 ?? []), createHash("md5").update(CONTENT).digest());
  const [sent] = storage.sent;
  assert.deepEqual([sent?.method, sent?.body.toString()], ["PUT", "0123456789"]);
  const { connection: _, ...headers } = sent?.headers ?? {};
  assert.deepEqual(headers, { host: storage.host, "content-length": "10", "content-type": "text/x-part" });
  assert.deepEqual((gateway.asked("CompleteUpload")[0] as { etags?: string[] }).etags, ['"0123456789"']);
});

test("the parts of a large document go up four at a time, and are completed in order", async () => {
  let [open, most] = [0, 0];
  const waiting: (() => void)[] = [];
  const { client, gateway, storage } = await world(async (sent, response) => {
    most = Math.max(most, ++open);
    if (storage.sent.length <= 4) {
      await new Promise<void>((resolve) => {
        waiting.push(resolve);
        if (waiting.length === 4) {
          waiting.reverse().forEach((release) => release());
        }
      });
    }
    open--;
    await takesParts(sent, response);
  });
  takesUploads(gateway, storage, 1);
  await client.upload(CONTENT, BUCKET, "in/a.txt");
  assert.equal(most, 4);
  const [completed] = gateway.asked("CompleteUpload") as { etags?: string[] }[];
  assert.deepEqual(completed?.etags, [..."0123456789"].map((digit) => `"${digit}"`));
});

test("a part is repeated when the storage is away or breaks off, and the upload aborted when that does not help", async () => {
  let failures = 3;
  const { client, gateway, storage } = await world((sent, response) => {
    if (failures-- > 0) {
      failures === 1 ? response.destroy() : response.writeHead(503).end();
    } else {
      return takesParts(sent, response);
    }
  });
  takesUploads(gateway, storage, 100);
  await client.upload(CONTENT, BUCKET, "in/a.txt");
  assert.equal(storage.sent.length, 4);
  failures = 100;
  await assert.rejects(client.upload(CONTENT, BUCKET, "in/a.txt"), { name: "Unavailable", retry: "now" });
  assert.equal(storage.sent.length, 8);
  assert.equal(gateway.asked("AbortUpload").length, 1);
});

test("an upload whose addresses have expired is begun again once, one that is refused is not", async () => {
  const refused: Reply = (_, response) => {
    response.writeHead(403).end("<Error><Code>AccessDenied</Code><Message>q-signature=secret</Message></Error>");
  };
  let replies = [refused, takesParts];
  const { client, gateway, storage } = await world((sent, response) => (replies.shift() ?? refused)(sent, response));
  takesUploads(gateway, storage, 100, PAST, LATER, LATER, PAST, PAST);
  await client.upload(CONTENT, BUCKET, "in/a.txt");
  assert.equal(gateway.asked("CreateUpload").length, 2);
  await assert.rejects(client.upload(CONTENT, BUCKET, "in/a.txt"), (error) => {
    const { name, message } = error as Error;
    return name === "PermissionDenied" && message.includes("HTTP 403 AccessDenied") && !message.includes("secret");
  });
  assert.equal(gateway.asked("CreateUpload").length, 3);
  await assert.rejects(client.upload(CONTENT, BUCKET, "in/a.txt"), { name: "PermissionDenied" });
  assert.equal(gateway.asked("CreateUpload").length, 5);
});

const conflict: Reply = (_, response) => {
  response.writeHead(409).end("<Error><Code>FileAlreadyExists</Code></Error>");
};

test("a document that is there already is completed with its MD5 as the ETag", async () => {
  const lost: Reply = (_, response) => {
    response.destroy();
  };
  for (const replies of [[lost, conflict], [conflict]]) {
    const { client, gateway, storage } = await world((sent, response) => (replies.shift() ?? takesParts)(sent, response));
    takesUploads(gateway, storage, 100);
    await client.upload(CONTENT, BUCKET, "in/a.txt");
    const [completed] = gateway.asked("CompleteUpload") as { etags?: string[] }[];
    assert.deepEqual(completed?.etags, [`"${createHash("md5").update(CONTENT).digest("hex")}"`]);
    assert.deepEqual(replies, []);
  }
});

test("an object of another upload is an error in the words of the gateway, a conflict of one part of several in the cloud's", async () => {
  const { client, gateway, storage } = await world((sent, response) => {
    gateway.on("CompleteUpload", () => {
      throw failure(status.FAILED_PRECONDITION, "UPLOAD_INCOMPLETE");
    });
    return conflict(sent, response);
  });
  takesUploads(gateway, storage, 4);
  await assert.rejects(client.upload(CONTENT, BUCKET, "in/a.txt"), { name: "FailedPrecondition", reason: "" });
  assert.equal(gateway.asked("CompleteUpload").length, 0);
  takesUploads(gateway, storage, 100);
  await assert.rejects(client.upload(CONTENT, BUCKET, "in/a.txt"), { name: "FailedPrecondition", reason: "UPLOAD_INCOMPLETE" });
  assert.equal(gateway.asked("AbortUpload").length, 2);
});

test("an upload ends at its deadline, and is aborted", async () => {
  const { client, gateway, storage } = await world(() => undefined);
  takesUploads(gateway, storage, 100);
  await assert.rejects(client.upload(CONTENT, BUCKET, "in/a.txt", { timeoutMs: 300 }), { name: "DeadlineExceeded" });
  assert.equal(gateway.asked("AbortUpload").length, 1);
});

test("what cannot be uploaded is told before anything is sent", async () => {
  const { client, gateway } = await world(takesParts);
  const directory = await scratch();
  await assert.rejects(client.upload(join(directory, "missing.pdf"), BUCKET), { code: "ENOENT" });
  await assert.rejects(client.upload(CONTENT, BUCKET), TypeError);
  assert.equal(gateway.calls.length, 0);
});

test("an empty document is refused before anything is sent", async () => {
  const { client, gateway } = await world(takesParts);
  const path = join(await scratch(), "a.pdf");
  await writeFile(path, "");
  const empty = { name: "InvalidRequest", code: status.INVALID_ARGUMENT, retry: "never", message: `${path} is empty` };
  await assert.rejects(client.upload(path, BUCKET), empty);
  await assert.rejects(client.preview(path, BUCKET, await scratch()), empty);
  await assert.rejects(client.upload(new Uint8Array(), BUCKET, "in/a.pdf"), { message: "the document is empty" });
  assert.equal(gateway.calls.length, 0);
});

test("a file that changes while it is uploaded is not completed: its length, its time, or its content of the announced MD5", async () => {
  const path = join(await scratch(), "a.txt");
  const changes: Reply[] = [
    async (sent, response) => {
      await appendFile(path, "more");
      await takesParts(sent, response);
    },
    async (sent, response) => {
      await utimes(path, 1, 1);
      await takesParts(sent, response);
    },
    async (_, response) => {
      await writeFile(path, "9876543210");
      response.writeHead(400).end("<Error><Code>BadDigest</Code></Error>");
    },
  ];
  for (const change of changes) {
    await writeFile(path, CONTENT);
    const { client, gateway, storage } = await world(change);
    takesUploads(gateway, storage, 100);
    await assert.rejects(client.upload(path, BUCKET), { name: "FailedPrecondition", retry: "never", message: /changed while it was uploaded/ });
    assert.deepEqual(["CompleteUpload", "AbortUpload"].map((method) => gateway.asked(method).length), [0, 1]);
  }
});

interface Pages {
  jobId?: string;
  contentType?: string;
  names?: string[];
  sheets?: number[][];
  url?: (object: string) => string;
  pdf?: boolean;
}

/** A job that has made these pages. */
function made({ jobId = "d1", contentType = "", names = ["out/1.jpg", "out/2.jpg", "out/3.jpg"], sheets, url, pdf }: Pages = {}): PreviewJob {
  const pages = names.map((object, index) => ({
    object,
    contentType,
    pageNumber: sheets?.[index]?.[0] ?? index + 1,
    pictureNumber: sheets?.[index]?.[1] ?? 0,
    url: url?.(object) ?? "",
  }));
  const totalSheetCount = sheets === undefined ? 0 : 2;
  const targetFormat = pdf === true ? PreviewOptions_TargetFormat.PDF : PreviewOptions_TargetFormat.UNSPECIFIED;
  const result = { pages, totalSheetCount, targetFormat };
  return create(PreviewJobSchema, { bucket: BUCKET, jobId, state: PreviewJob_State.SUCCESS, result });
}

const pageOf = (path: string): Buffer => Buffer.from(`content of ${path.split("?")[0]}`);
const givesPages: Reply = (sent, response) => serveContent(pageOf(sent.path), sent, response);

test("the pages of a job come as files that sort, and once", async () => {
  const { client, gateway, storage } = await world(givesPages);
  const job = made({ url: (object) => storage.url(object) });
  const directory = join(await scratch(), "new", "pages");
  const progress: Progress[] = [];
  const files = await client.download(job, directory, { onProgress: (made) => progress.push(made) });
  assert.deepEqual(files.map(({ name }) => name), ["page-0001.jpg", "page-0002.jpg", "page-0003.jpg"]);
  for (const { path, bytes, page } of files) {
    const content = await readFile(path);
    assert.deepEqual([content.toString(), bytes], [`content of /${page.object}`, content.length]);
  }
  const bytes = files.reduce((sum, file) => sum + file.bytes, 0);
  assert.deepEqual(progress.map(({ pagesDone }) => pagesDone), [0, 1, 2, 3]);
  assert.deepEqual(progress.at(-1), { pagesDone: 3, pagesTotal: 3, bytes });
  const manifest = JSON.parse(await readFile(join(directory, ".docpreview.json"), "utf8")) as object;
  assert.deepEqual(manifest, { job_id: "d1", pages: Object.fromEntries(files.map((file) => [file.name, file.bytes])) });

  await writeFile(files[1]?.path ?? "", "cut");
  assert.deepEqual(await client.download(job, directory), files);
  assert.equal(storage.sent.length, 4);
  assert.equal(gateway.calls.length, 0);
});

test("a directory keeps nothing of another job, and all else that is in it", async () => {
  const { client, storage } = await world(givesPages);
  const outside = await scratch();
  const directory = join(outside, "pages");
  const url = (object: string): string => storage.url(object);
  await client.download(made({ url }), directory);
  await writeFile(join(directory, "notes.txt"), "mine");
  await writeFile(join(directory, "page-0009.jpg.part"), "begun");
  await client.download(made({ jobId: "d2", names: ["x/1.png"], url }), directory);
  assert.deepEqual((await readdir(directory)).sort(), [".docpreview.json", "notes.txt", "page-0001.png"]);

  await writeFile(join(outside, "page-0001.jpg"), "mine");
  const forged = { job_id: "d9", pages: { "../page-0001.jpg": 4, "notes.txt": 4 } };
  await writeFile(join(directory, ".docpreview.json"), JSON.stringify(forged));
  await client.download(made({ jobId: "d2", names: ["x/1.png"], url }), directory);
  assert.deepEqual([(await readdir(outside)).sort(), (await readdir(directory)).length], [["page-0001.jpg", "pages"], 3]);
});

test("names of files come from numbers, not from object keys", async () => {
  const { client, storage } = await world(givesPages);
  const url = (object: string): string => storage.url(encodeURIComponent(object));
  const named = async (pages: Pages): Promise<string[]> =>
    (await client.download(made({ ...pages, url }), await scratch())).map(({ name }) => name);
  assert.deepEqual(await named({ names: ["../../etc/passwd", "a/..\\b.pn/g"] }), ["page-0001.jpg", "page-0002.jpg"]);
  assert.deepEqual(await named({ names: ["a.pdf"], pdf: true }), ["document.pdf"]);
  const names = ["1", "2", "3", "4"].map((name) => `${name}.png`);
  const sheets = [[1, 1], [1, 2], [2, 1], [2, 2]];
  assert.deepEqual(
    await named({ names, sheets }),
    ["sheet-01-page-001.png", "sheet-01-page-002.png", "sheet-02-page-001.png", "sheet-02-page-002.png"],
  );
  const unnumbered = [[1, 0], [1, 0], [2, 5], [2, 5]];
  assert.deepEqual(
    await named({ names, sheets: unnumbered }),
    ["sheet-01-page-001.png", "sheet-01-page-002.png", "sheet-02-page-001.png", "sheet-02-page-002.png"],
  );
});

test("addresses that are missing or refused are asked for again, for all pages at once", async () => {
  const { client, gateway, storage } = await world((sent, response) => {
    sent.path.startsWith("/fresh") ? givesPages(sent, response) : response.writeHead(403).end();
  });
  gateway.on("GetPreviewJob", () => made({ url: (object) => storage.url(`fresh/${object}`) }));
  await client.download(made(), await scratch(), { pageUrlTtlMs: 2000 });
  const [request] = gateway.asked("GetPreviewJob") as GetPreviewJobRequest[];
  assert.deepEqual([gateway.calls.length, request?.pageUrlTtl?.seconds], [1, 2n]);
  await client.download(made({ url: (object) => storage.url(object) }), await scratch());
  assert.equal(gateway.calls.length, 2);
});

test("a page that stays refused, or has no address at all, is an error that tells no address", async () => {
  const { client, gateway, storage } = await world((_, response) => response.writeHead(403).end() && undefined);
  gateway.on("GetPreviewJob", () => made({ url: (object) => storage.url(object) }));
  await assert.rejects(client.download(made(), await scratch()), (error) => {
    return (error as Error).name === "PermissionDenied" && !(error as Error).message.includes("signature");
  });
  gateway.on("GetPreviewJob", () => made());
  await assert.rejects(client.download(made(), await scratch()), { name: "PermissionDenied" });
});

test("a download that breaks off goes on where it stopped, in the same call and in the next", async () => {
  const ranges: (string | undefined)[] = [];
  let cuts = 1;
  const directory = await scratch();
  const { client, storage } = await world(async (sent, response) => {
    ranges.push(sent.headers.range);
    if (cuts-- > 0) {
      const content = pageOf(sent.path);
      const part = join(directory, "page-0001.jpg.part");
      await new Promise<void>((resolve) => {
        const writes = watch(directory, async () => {
          const written = await stat(part).catch(() => undefined);
          if (written?.size === 5) {
            writes.close();
            resolve();
          }
        }); // it watches from here on, before there is anything to write
        response.writeHead(200, { "content-length": content.length }).write(content.subarray(0, 5));
      });
      response.destroy();
    } else {
      await givesPages(sent, response);
    }
  });
  const job = made({ names: ["out/1.jpg"], url: (object) => storage.url(object) });
  const [file] = await client.download(job, directory);
  assert.deepEqual(await readFile(file?.path ?? ""), pageOf("/out/1.jpg"));
  assert.deepEqual(ranges, [undefined, "bytes=5-"]);

  await rm(file?.path ?? "");
  await writeFile(`${file?.path}.part`, pageOf("/out/1.jpg").subarray(0, 7));
  await client.download(job, directory);
  assert.deepEqual(await readFile(file?.path ?? ""), pageOf("/out/1.jpg"));
  assert.equal(ranges.at(-1), "bytes=7-");

  await rm(file?.path ?? "");
  await writeFile(`${file?.path}.part`, "longer than the page can be, whatever it is");
  await client.download(job, directory);
  assert.deepEqual(await readFile(file?.path ?? ""), pageOf("/out/1.jpg"));
});

test("pages that came before a failure are not fetched again", async () => {
  let broken = true;
  const { client, storage } = await world((sent, response) => {
    broken && sent.path.startsWith("/out/3") ? response.writeHead(404).end() : givesPages(sent, response);
  });
  const job = made({ url: (object) => storage.url(object) });
  const directory = await scratch();
  await assert.rejects(client.download(job, directory, { concurrency: 1 }), { name: "NotFound" });
  broken = false;
  await client.download(job, directory);
  assert.equal(storage.sent.length, 4);
});

test("what a proxy answers instead of the storage is no page", async () => {
  let answer: [string | undefined, string] = ["text/html; charset=utf-8", "Log in first"];
  const { client, storage } = await world((_, response) => {
    const [type, body] = answer;
    response.writeHead(200, { "content-length": body.length, ...(type === undefined ? {} : { "content-type": type }) }).end(body);
  });
  const names = ["out/1.jpg"];
  const url = (object: string): string => storage.url(object);
  const directory = await scratch();
  const typed = made({ names, url, contentType: "image/jpeg" });
  const said = (message: RegExp): object => ({ name: "Unavailable", retry: "now", message });
  await assert.rejects(client.download(typed, directory), said(/page 1 is text\/html and not image\/jpeg: something on the way \(a proxy\)/));
  assert.equal(storage.sent.length, 4); // it may have been a short time only
  answer = ["image/jpeg", ""];
  await assert.rejects(client.download(typed, directory), said(/page 1 is empty: something on the way \(a proxy\)/));
  assert.deepEqual(await readdir(directory), [".docpreview.json"]);
  for (const [job, type] of [[typed, "Image/JPEG; q=1"], [typed, undefined], [made({ names, url }), "text/html"]] as const) {
    answer = [type, "a page"];
    assert.equal((await client.download(job, await scratch())).length, 1);
  }
});

/** Downloads a job with bounds that a test can reach. */
async function within(bounds: ConstructorParameters<typeof Storage>[0], job: PreviewJob, directory: string): Promise<PageFile[]> {
  const transfers = new Storage(bounds);
  stops.push(() => transfers.close());
  return downloaded(transfers, job, async () => job, directory, { deadline: new Deadline(30_000) });
}

test("a redirect to a login, or an answer without content, is no page", async () => {
  for (const code of [302, 204]) {
    const { client, storage } = await world((_, response) => void response.writeHead(code, { location: "/login" }).end());
    const job = made({ names: ["out/1.jpg"], url: (object) => storage.url(object) });
    const message = new RegExp(`a proxy.* HTTP ${code}`);
    await assert.rejects(client.download(job, await scratch()), { name: "Unavailable", retry: "now", message });
    assert.equal(storage.sent.length, 4);
  }
});

test("a body without end is no page and leaves no file, one longer than told is fetched anew", async () => {
  const tooMuch: Reply = (_, response) => {
    response.writeHead(200).end(Buffer.alloc(1001)); // in chunks: no length is told
  };
  const { storage } = await world((sent, response) => (replies.shift() ?? tooMuch)(sent, response));
  const replies: Reply[] = [];
  const directory = await scratch();
  const job = made({ names: ["out/1.jpg"], url: (object) => storage.url(object) });
  await assert.rejects(within({ longestBody: 1000 }, job, directory), {
    name: "Unavailable",
    retry: "now",
    message: /page 1 has more than 1000 bytes: something on the way \(a proxy\)/,
  });
  assert.equal(storage.sent.length, 4);
  assert.deepEqual(await readdir(directory), [".docpreview.json"]);

  await writeFile(join(directory, "page-0001.jpg.part"), "abc");
  replies.push(
    (_, response) => void response.writeHead(206, { "content-range": "bytes 3-8/9" }).end("defghijkl"),
    (_, response) => void response.writeHead(200).end("abcdefghi"),
  );
  const [file] = await within({}, job, directory);
  assert.equal(await readFile(file?.path ?? "", "utf8"), "abcdefghi");
  assert.deepEqual(storage.sent.slice(4).map(({ headers }) => headers.range), ["bytes=3-", undefined]);
});

test("a body that gives nothing more is a connection that failed", async () => {
  const { storage } = await world((sent, response) => {
    storage.sent.length === 1 ? response.writeHead(200, { "content-length": 99 }).write("conte") : givesPages(sent, response);
  });
  const job = made({ names: ["out/1.jpg"], url: (object) => storage.url(object) });
  const [file] = await within({ idleMs: 300 }, job, await scratch());
  assert.deepEqual(await readFile(file?.path ?? ""), pageOf("/out/1.jpg"));
  assert.deepEqual(storage.sent.map(({ headers }) => headers.range), [undefined, "bytes=5-"]);
});

test("a job without pages is not downloaded", async () => {
  const { client } = await world(givesPages);
  await assert.rejects(client.download(running, await scratch()), { name: "FailedPrecondition" });
  const failed = create(PreviewJobSchema, { jobId: "d1", state: PreviewJob_State.FAILED, failure: { message: "too large" } });
  await assert.rejects(client.download(failed, await scratch()), { name: "FailedPrecondition", message: /FAILED: too large/ });
});

test("a preview goes from a file to its pages", async () => {
  const { client, gateway, storage } = await world((sent, response) =>
    sent.method === "PUT" ? takesParts(sent, response) : givesPages(sent, response),
  );
  takesUploads(gateway, storage, 100);
  gateway.on("CreatePreviewJob", () => running);
  gateway.on("WatchPreviewJob", () => [{ job: made({ url: (object) => storage.url(object) }) }]);
  const directory = await scratch();
  await writeFile(join(directory, "a.xlsx"), CONTENT);
  const seen: PreviewJob_State[] = [];
  const options = { request: { options: { quality: 80 } }, onJob: (job: PreviewJob) => seen.push(job.state) };
  const { job, files } = await client.preview(join(directory, "a.xlsx"), BUCKET, join(directory, "pages"), options);
  assert.deepEqual([job.jobId, files.length, seen], ["d1", 3, [PreviewJob_State.RUNNING, PreviewJob_State.SUCCESS]]);
  const [created] = gateway.asked("CreatePreviewJob") as CreatePreviewJobRequest[];
  assert.match(created?.requestId ?? "", /^[0-9a-f-]{36}$/);
  assert.deepEqual([created?.inputObject, created?.options?.quality], [`in/${digitsOf(created?.requestId ?? "", CONTENT)}.xlsx`, 80]);
  assert.equal(created?.output?.object, "out/${RequestToken}/sheet-${SheetID}/page-${Number}.jpg");
});

test("a preview checks its directory before anything is sent, and has no files when the job fails", async () => {
  const { client, gateway, storage } = await world(takesParts);
  takesUploads(gateway, storage, 100);
  const directory = await scratch();
  await writeFile(join(directory, "file"), "");
  await assert.rejects(client.preview(CONTENT, BUCKET, join(directory, "file"), { object: "in/a.txt" }), { code: "EEXIST" });
  assert.equal(gateway.calls.length, 0);
  gateway.on("CreatePreviewJob", () => create(PreviewJobSchema, { ...running, state: PreviewJob_State.FAILED }));
  gateway.on("WatchPreviewJob", () => [{ job: create(PreviewJobSchema, { ...running, state: PreviewJob_State.FAILED }) }]);
  const { job, files } = await client.preview(CONTENT, BUCKET, join(directory, "pages"), { object: "in/a.txt" });
  assert.deepEqual([job.state, files], [PreviewJob_State.FAILED, []]);
  gateway.on("CreateUpload", () => {
    throw failure(status.PERMISSION_DENIED, "NOT_PERMITTED");
  });
  await assert.rejects(client.upload(CONTENT, BUCKET, "in/a.txt"), { reason: "NOT_PERMITTED", retry: "never" });
});

/** A world in which a preview comes to its pages, unless a test says otherwise. */
async function previewing(pages: Reply = givesPages): Promise<Awaited<ReturnType<typeof world>> & { path: string; directory: string }> {
  const there = await world((sent, response) => (sent.method === "PUT" ? takesParts(sent, response) : pages(sent, response)));
  const { gateway, storage } = there;
  takesUploads(gateway, storage, 100);
  gateway.on("CreatePreviewJob", () => running);
  gateway.on("WatchPreviewJob", () => [{ job: made({ url: (object) => storage.url(object) }) }]);
  const folder = await scratch();
  const path = join(folder, "a.txt");
  await writeFile(path, CONTENT);
  return { ...there, path, directory: join(folder, "pages") };
}

test("a preview that fails once its job is made tells the job, and is no error to repeat it for", async () => {
  const { client, gateway, path, directory } = await previewing((_, response) => response.writeHead(404).end() && undefined);
  const fails = async (state: PreviewJob_State, caused: (cause: Error) => boolean, options: PreviewCallOptions = {}): Promise<void> => {
    await assert.rejects(client.preview(path, BUCKET, directory, options), (error) => {
      assert(error instanceof PreviewUnfinished);
      const { name, retry, retryDelayMs, code, reason, job, message } = error;
      assert.deepEqual([name, retry, retryDelayMs, code, reason], ["PreviewUnfinished", "never", undefined, status.UNKNOWN, ""]);
      assert.deepEqual([job.jobId, job.state], ["d1", state]);
      assert(caused(error.cause as Error), String(error.cause));
      const why = (error.cause as Error).message.replace(/\.$/, "");
      assert(message.startsWith(`job d1 was made and its pages are not all here: ${why}; go on with download: `), message);
      assert.match(message, /client\.wait\(".+", "d1"\) or client\.get, then client\.download$/);
      return true;
    });
  };
  const { RUNNING, SUCCESS } = PreviewJob_State;
  await fails(SUCCESS, (cause) => cause.name === "NotFound"); // of a page

  const full = new Error("no space left on device");
  const onProgress = (): never => {
    throw full;
  };
  await fails(SUCCESS, (cause) => cause === full, { onProgress });

  gateway.on("WatchPreviewJob", () => ({ says: [], ends: failure(status.PERMISSION_DENIED, "NOT_PERMITTED") }));
  await fails(RUNNING, (cause) => cause.name === "PermissionDenied");
  gateway.on("WatchPreviewJob", () => ({ says: [running], ends: "silent" }));
  await fails(RUNNING, (cause) => cause.name === "DeadlineExceeded", { timeoutMs: 500 });
  const left = new AbortController();
  await fails(RUNNING, (cause) => cause.name === "AbortError", { signal: left.signal, onJob: () => left.abort() });
  const onJob = (): void => rmSync(directory, { recursive: true });
  await fails(RUNNING, (cause) => "code" in cause && cause.code === "ENOENT", { onJob });
});

const requestId = "7D3F9B7E-6d0c-4a51-9f0e-2f4c8f6f2a10";
const md5 = (content: string | Uint8Array): string => createHash("md5").update(content).digest("hex");
const digitsOf = (id: string, content: Uint8Array): string => md5(`${id.toLowerCase()}\n${md5(content)}`);

function createsOf(gateway: FakeGateway): CreatePreviewJobRequest[] {
  return gateway.asked("CreatePreviewJob") as CreatePreviewJobRequest[];
}

test("the key of a preview's document follows from the requestId and the content, also in a template of the user's own", async () => {
  const { client, gateway, path, directory } = await previewing();
  await client.preview(path, BUCKET, directory, { request: { requestId } });
  await client.preview(path, BUCKET, directory, { request: { requestId } });
  await writeFile(path, "another");
  await client.preview(path, BUCKET, directory, { request: { requestId } });
  await client.preview(CONTENT, BUCKET, directory, { object: "a/${UploadId}/${UploadId}.txt", request: { requestId } });
  await client.preview(CONTENT, BUCKET, directory, { object: "a/b.txt", request: { requestId } });
  const [digits, others] = [digitsOf(requestId, CONTENT), digitsOf(requestId, Buffer.from("another"))];
  assert.match(digits, /^[0-9a-f]{32}$/);
  const keys = [`in/${digits}.txt`, `in/${digits}.txt`, `in/${others}.txt`, `a/${digits}/${digits}.txt`, "a/b.txt"];
  const uploads = gateway.asked("CreateUpload") as CreateUploadRequest[];
  assert.deepEqual(uploads.map(({ object }) => object), keys);
  assert.equal(Buffer.from(uploads[0]?.contentMd5 ?? []).toString("hex"), md5(CONTENT));
  assert.deepEqual(createsOf(gateway).map((sent) => [sent.requestId, sent.inputObject]), keys.map((key) => [requestId, key]));
});

test("a preview of a large document goes on with the object that an earlier one brought under a key of its own only", async () => {
  const exists = failure(status.ALREADY_EXISTS, "OBJECT_EXISTS");
  const content = Buffer.alloc(16 * 1024 * 1024 + 1, "a");
  const given = { object: "in/${UploadId}.txt", request: { requestId } };
  for (const refusing of ["CreateUpload", "CompleteUpload"]) {
    const { client, gateway, storage } = await world((sent, response) =>
      sent.method === "PUT" ? void response.writeHead(200, { etag: '"part"' }).end() : givesPages(sent, response),
    );
    const directory = await scratch();
    gateway.on("CreatePreviewJob", () => running);
    gateway.on("WatchPreviewJob", () => [{ job: made({ url: (object) => storage.url(object) }) }]);
    takesUploads(gateway, storage, 16 * 1024 * 1024);
    const takes = gateway.handler("CreateUpload");
    gateway.on("CreateUpload", (...asked) => {
      const upload = refusing === "CreateUpload" ? exists : takes?.(...asked);
      gateway.on("CompleteUpload", () => exists);
      return upload;
    });
    const { files } = await client.preview(content, BUCKET, directory, given);
    assert.equal(files.length, 3);
    const [upload] = gateway.asked("CreateUpload") as CreateUploadRequest[];
    assert.deepEqual([upload?.object, upload?.contentMd5.length], [`in/${digitsOf(requestId, content)}.txt`, 0]);
    assert.equal(createsOf(gateway)[0]?.inputObject, upload?.object);
    await assert.rejects(client.preview(content, BUCKET, directory, { ...given, object: "in/a.txt" }), { reason: "OBJECT_EXISTS" });
    assert.equal(createsOf(gateway).length, 1);
  }
});

test("a small object that the gateway says is another's is not taken for a preview's document", async () => {
  const { client, gateway, path, directory } = await previewing();
  const takes = gateway.handler("CreateUpload");
  gateway.on("CreateUpload", (...asked) => {
    const upload = takes?.(...asked);
    gateway.on("CompleteUpload", () => failure(status.ALREADY_EXISTS, "OBJECT_EXISTS"));
    return upload;
  });
  for (const object of [undefined, "in/a.txt"]) {
    await assert.rejects(client.preview(path, BUCKET, directory, { object, request: { requestId } }), { reason: "OBJECT_EXISTS" });
  }
  assert.equal(createsOf(gateway).length, 0);
});

test("a requestId that is no UUID, bad numbers and empty names are refused before anything is sent", async () => {
  const { client, gateway, path, directory } = await previewing();
  const refused = { name: "InvalidRequest", code: status.INVALID_ARGUMENT, retry: "never" };
  await assert.rejects(client.preview(path, BUCKET, directory, { request: { requestId: "mine" } }), { ...refused, message: /requestId must be a UUID/ });
  const job = made();
  for (const options of [{ concurrency: 0 }, { concurrency: NaN }, { concurrency: 1.5 }, { pageUrlTtlMs: 999 }, { pageUrlTtlMs: NaN }, { timeoutMs: NaN }]) {
    await assert.rejects(client.preview(path, BUCKET, directory, options), refused);
    await assert.rejects(client.download(job, directory, options), refused);
  }
  await assert.rejects(client.preview(path, BUCKET, ""), { ...refused, message: "the name of the directory is empty" });
  await assert.rejects(client.download(job, ""), refused);
  await assert.rejects(client.watchMany(BUCKET, "d1").next(), { ...refused, message: "jobIds must be a list of ids, not a text" });
  await assert.rejects(client.batchGet(BUCKET, "d1" as unknown as string[]), refused);
  assert.equal(gateway.calls.length, 0);
});

test("a document that is no regular file is refused before anything is sent, and a FIFO is not waited for", async () => {
  const { client, gateway, directory } = await previewing();
  const fifo = join(await scratch(), "a.pdf");
  execFileSync("mkfifo", [fifo]);
  for (const path of [fifo, "/dev/null", await scratch()]) {
    const refused = { name: "InvalidRequest", retry: "never", message: `${path} is not a regular file` };
    await assert.rejects(client.upload(path, BUCKET), refused);
    await assert.rejects(client.preview(path, BUCKET, directory), refused);
  }
  assert.equal(gateway.calls.length, 0);
});

test("a second download or preview to a directory is refused before anything is sent, until the first has ended", async () => {
  const { client, gateway, path, directory } = await previewing();
  const here = new Promise<void>((resolve) => {
    gateway.on("WatchPreviewJob", () => {
      resolve();
      return { says: [running], ends: "silent" };
    });
  });
  const end = new AbortController();
  const first = client.preview(path, BUCKET, directory, { signal: end.signal });
  await here;
  const calls = gateway.calls.length;
  const link = join(await scratch(), "link");
  await symlink(directory, link);
  for (const same of [directory, `${directory}/../pages/`, link]) {
    const refused = { name: "InvalidRequest", retry: "never", message: `another download goes to ${same}` };
    await assert.rejects(client.preview(path, BUCKET, same), refused);
    await assert.rejects(client.download(made(), same), refused);
  }
  assert.equal(gateway.calls.length, calls);
  end.abort();
  await assert.rejects(first, PreviewUnfinished);

  const { storage } = await world(givesPages);
  const job = made({ url: (object) => storage.url(object) });
  assert.equal((await client.download(job, directory)).length, 3);
});

test("what a proxy answers to a part is tried again, and then Unavailable", async () => {
  const answers: [number, Record<string, string>, RegExp][] = [
    [200, {}, /HTTP 200 without an ETag/],
    [201, { etag: '"a"' }, /HTTP 201/],
    [204, { etag: '"a"' }, /HTTP 204/],
    [301, { location: "/login" }, /HTTP 301/],
    [302, { location: "/login" }, /HTTP 302/],
    [407, {}, /HTTP 407/],
    [200, { etag: '"a"', "content-type": "text/html; charset=utf-8" }, /HTTP 200 and a page of HTML/],
    [403, { "content-type": "Text/HTML" }, /HTTP 403 and a page of HTML/],
    [409, { "content-type": "text/html" }, /HTTP 409 and a page of HTML/],
    [101, { upgrade: "other", connection: "upgrade" }, /HTTP 101/],
  ];
  const check = async ([code, headers, said]: (typeof answers)[number]): Promise<void> => {
    let foreign = 1;
    const { client, gateway, storage } = await world((sent, response) => {
      foreign-- > 0 ? response.writeHead(code, headers).end() : takesParts(sent, response);
    });
    takesUploads(gateway, storage, 100, LATER, PAST);
    await client.upload(CONTENT, BUCKET, "in/a.txt");
    assert.equal(storage.sent.length, 2);
    foreign = 100;
    await assert.rejects(client.upload(CONTENT, BUCKET, "in/a.txt"), (error) => {
      const { name, retry, message } = error as DocPreviewError;
      assert.deepEqual([name, retry], ["Unavailable", "now"]);
      assert.match(message, /^Something on the way \(a proxy\) answered PUT with /);
      assert.match(message, said);
      return true;
    });
    assert.equal(storage.sent.length, 6);
    assert.deepEqual(new Set(storage.sent.map(({ path }) => path.split("?")[0])), new Set(["/part-0"])); // none is followed
    assert.equal(gateway.asked("AbortUpload").length, 1);
  };
  await Promise.all(answers.map(check));
});

test("a preview whose job may be made tells the requestId to repeat it with", async () => {
  const { client, gateway, path, directory } = await previewing();
  gateway.on("CreatePreviewJob", () => failure(status.UNKNOWN, "CREATE_OUTCOME_UNKNOWN", 60_000));
  await assert.rejects(client.preview(path, BUCKET, directory), (error) => {
    const [sent] = gateway.asked("CreatePreviewJob") as CreatePreviewJobRequest[];
    return error instanceof OutcomeUnknown && error.createRequestId === sent?.requestId && sent.inputObject === `in/${digitsOf(sent.requestId, CONTENT)}.txt`;
  });
});

test("a preview deletes the pages of another job before it watches its own, and keeps those of its own", async () => {
  const { client, gateway, storage, path, directory } = await previewing();
  await client.download(made({ jobId: "d0", url: (object) => storage.url(object) }), directory);
  let seen: string[] = [];
  const failed = create(PreviewJobSchema, { ...running, state: PreviewJob_State.FAILED });
  gateway.on("WatchPreviewJob", () => {
    seen = readdirSync(directory);
    return [{ job: failed }];
  });
  const { job, files } = await client.preview(path, BUCKET, directory);
  assert.deepEqual([job.state, files, seen], [PreviewJob_State.FAILED, [], [".docpreview.json"]]);

  await client.download(made({ url: (object) => storage.url(object) }), directory);
  await client.preview(path, BUCKET, directory);
  assert.deepEqual(seen.sort(), [".docpreview.json", "page-0001.jpg", "page-0002.jpg", "page-0003.jpg"]);
});
