/** The pages of a job on their way to a directory: in parallel, resumed where a download was interrupted. */

import { open, rename, rm, stat } from "node:fs/promises";
import type { IncomingMessage } from "node:http";
import { join } from "node:path";

import { status } from "@grpc/grpc-js";

import type { Bounds } from "./deadline.js";
import { FailedPrecondition, PermissionDenied, Unavailable } from "./errors.js";
import { type Page, type PreviewJob, PreviewJob_State } from "./gen/docpreview/v1/preview_job_pb.js";
import { Manifest } from "./manifest.js";
import { namesOf } from "./naming.js";
import type { DownloadOptions } from "./options.js";
import { inParallel } from "./parallel.js";
import { mediaType, RangeRefused, received, Refused, type Storage, withRepeats } from "./transfer.js";
import { isTerminal } from "./watching.js";

/** A page on disk. */
export interface PageFile {
  /** Path of the file: the directory, and `page-0001.jpg`, `sheet-01-page-001.jpg` or `document.pdf`. */
  readonly path: string;
  /** The last part of `path`. */
  readonly name: string;
  /** Size of the file. */
  readonly bytes: number;
  /** What the job says of the page. */
  readonly page: Page;
}

const AT_ONCE = 8;
// So often the address of a page is renewed because the storage refuses it.
const RENEWALS = 3;

/** Downloads the pages of a job to a directory that is there. `renewed` returns the job with fresh addresses. */
export async function downloaded(
  storage: Storage,
  job: PreviewJob,
  renewed: () => Promise<PreviewJob>,
  directory: string,
  bounds: Bounds & DownloadOptions,
): Promise<PageFile[]> {
  const result = resultOf(job);
  const download = new Download(storage, new Addresses(job, renewed), await Manifest.of(directory, job.jobId), directory);
  return download.all(result.pages, namesOf(result), bounds);
}

/** What a job has made. Throws FailedPrecondition when it has made nothing. */
export function resultOf(job: PreviewJob): NonNullable<PreviewJob["result"]> {
  if (job.state !== PreviewJob_State.SUCCESS || job.result === undefined) {
    const why = isTerminal(job.state) ? (job.failure?.message ?? "") : "wait for it or watch it first";
    const message = `Job ${job.jobId} has no pages, its state is ${PreviewJob_State[job.state]}: ${why}`;
    throw new FailedPrecondition(message, status.FAILED_PRECONDITION);
  }
  return job.result;
}

class Download {
  readonly #storage: Storage;
  readonly #addresses: Addresses;
  readonly #manifest: Manifest;
  readonly #directory: string;
  #bytes = 0;

  constructor(storage: Storage, addresses: Addresses, manifest: Manifest, directory: string) {
    this.#storage = storage;
    this.#addresses = addresses;
    this.#manifest = manifest;
    this.#directory = directory;
  }

  async all(pages: readonly Page[], names: readonly string[], bounds: Bounds & DownloadOptions): Promise<PageFile[]> {
    const files = new Array<PageFile>(pages.length);
    let pagesDone = 0;
    const done = (index: number, bytes: number): void => {
      const [page, name] = [pages[index] as Page, names[index] as string];
      files[index] = { path: join(this.#directory, name), name, bytes, page };
      pagesDone++;
    };
    const tell = (): void => bounds.onProgress?.({ pagesDone, pagesTotal: pages.length, bytes: this.#bytes });
    const missing: [number, Page, string][] = [];
    for (const [index, page] of pages.entries()) {
      const name = names[index] as string;
      const kept = await this.#manifest.has(name);
      kept === undefined ? missing.push([index, page, name]) : done(index, kept);
    }
    tell();
    try {
      await inParallel(missing, bounds.concurrency ?? AT_ONCE, bounds, async ([index, page, name], signal) => {
        const bytes = await this.#fetch(page, name, { ...bounds, signal });
        await this.#manifest.add(name, bytes);
        done(index, bytes);
        tell();
      });
    } finally {
      await this.#manifest.write();
    }
    return files;
  }

  /** Fetches one page, with a fresh address when there is none or the storage refuses it, and returns its size. */
  async #fetch(page: Page, name: string, bounds: Bounds & { signal: AbortSignal }): Promise<number> {
    const path = join(this.#directory, name);
    for (let renewals = 0; ; renewals++) {
      const [url, generation] = await this.#addresses.of(page);
      try {
        const bytes = await withRepeats(() => this.#attempt(page, url, `${path}.part`, bounds.signal), bounds);
        await rename(`${path}.part`, path);
        return bytes;
      } catch (error) {
        if (!(error instanceof Refused) || renewals === RENEWALS) {
          throw error;
        }
        await this.#addresses.renew(generation);
      }
    }
  }

  /** Goes on where the file ends, and returns its size when it is whole. */
  async #attempt(page: Page, url: string, path: string, signal: AbortSignal): Promise<number> {
    const there = (await stat(path).catch(() => undefined))?.size ?? 0;
    const headers: Record<string, string> = there > 0 ? { Range: `bytes=${there}-` } : {};
    let reply: IncomingMessage;
    try {
      reply = await this.#storage.exchange({ method: "GET", url, headers, signal }, [200, 206]);
    } catch (error) {
      if (!(error instanceof RangeRefused)) {
        throw error;
      }
      await rm(path, { force: true });
      return this.#attempt(page, url, path, signal);
    }
    const type = reply.headers["content-type"] ?? "";
    if (type !== "" && page.contentType !== "" && mediaType(type) !== mediaType(page.contentType)) {
      reply.destroy();
      throw notPage(page, `is ${mediaType(type)} and not ${page.contentType}`);
    }
    const { from, total } = extentOf(reply);
    if (from !== there && from !== 0) {
      reply.destroy();
      await rm(path, { force: true });
      throw new Unavailable("The storage answered with another range than was asked for.", status.UNAVAILABLE);
    }
    const most = total ?? this.#storage.longestBody;
    await this.#write(reply, path, from, most, signal);
    const { size } = await stat(path);
    if (size > most) {
      await rm(path, { force: true });
      throw notPage(page, `has more than ${most} bytes`);
    }
    if (total !== undefined && size !== total) {
      throw new Unavailable(`The storage sent ${size} of ${total} bytes.`, status.UNAVAILABLE);
    }
    if (size === 0) {
      await rm(path, { force: true });
      throw notPage(page, "is empty");
    }
    return size;
  }

  /** Writes a body at the end of a file, as far as this is not longer than `most`. */
  async #write(reply: IncomingMessage, path: string, from: number, most: number, signal: AbortSignal): Promise<void> {
    const file = await open(path, from > 0 ? "a" : "w");
    let size = from;
    try {
      for await (const chunk of received(reply, signal)) {
        await file.appendFile(chunk);
        this.#bytes += chunk.length;
        size += chunk.length;
        if (size > most) {
          break; // ends the connection too
        }
      }
    } finally {
      await file.close();
    }
  }
}

function notPage({ pageNumber }: Page, why: string): Unavailable {
  const message = `What came for page ${pageNumber} ${why}: something on the way (a proxy) answered, not the storage.`;
  return new Unavailable(message, status.UNAVAILABLE);
}

/** Where the content of a reply begins in the page, and how long the page is, as far as the storage tells. */
function extentOf(reply: IncomingMessage): { from: number; total: number | undefined } {
  const range = /^bytes (\d+)-\d+\/(\d+)$/.exec(reply.headers["content-range"] ?? "");
  if (reply.statusCode === 206 && range !== null) {
    return { from: Number(range[1]), total: Number(range[2]) };
  }
  const length = reply.headers["content-length"];
  return { from: 0, total: length === undefined ? undefined : Number(length) };
}

/** The addresses of the pages, renewed for all at once. */
class Addresses {
  readonly #renewed: () => Promise<PreviewJob>;
  #urls: Map<string, string>;
  #generation = 0;
  #renewing: Promise<void> | undefined;

  constructor(job: PreviewJob, renewed: () => Promise<PreviewJob>) {
    this.#urls = urlsOf(job);
    this.#renewed = renewed;
  }

  /** The address of a page, and the generation that it is of. */
  async of({ object, pageNumber }: Page): Promise<[string, number]> {
    if (!this.#urls.has(object) && this.#generation === 0) {
      await this.renew(0);
    }
    const url = this.#urls.get(object);
    if (url === undefined) {
      const message = `The gateway gives no address of page ${pageNumber}: its policy or the output bucket is not this caller's.`;
      throw new PermissionDenied(message, status.PERMISSION_DENIED);
    }
    return [url, this.#generation];
  }

  /** Gets new addresses, unless that has happened since the given generation. */
  async renew(generation: number): Promise<void> {
    if (generation === this.#generation) {
      this.#renewing ??= this.#renewed()
        .then((job) => {
          this.#urls = urlsOf(job);
          this.#generation++;
        })
        .finally(() => (this.#renewing = undefined));
      await this.#renewing;
    }
  }
}

function urlsOf(job: PreviewJob): Map<string, string> {
  const pages = job.result?.pages ?? [];
  return new Map(pages.filter(({ url }) => url !== "").map(({ object, url }) => [object, url]));
}
