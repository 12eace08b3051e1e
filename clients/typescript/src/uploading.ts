/** A document on its way to a bucket: straight to the storage, in the parts and by the addresses that the gateway signs. */

import { createHash } from "node:crypto";
import { type FileHandle, open, stat } from "node:fs/promises";

import { timestampMs } from "@bufbuild/protobuf/wkt";
import { status } from "@grpc/grpc-js";

import { refusal } from "./checking.js";
import type { Connection } from "./connection.js";
import { type Bounds, Deadline } from "./deadline.js";
import { DocPreviewError, FailedPrecondition, InternalError } from "./errors.js";
import {
  type Upload,
  type UploadedObject,
  type UploadPart,
  UploadService,
} from "./gen/docpreview/v1/upload_service_pb.js";
import { inParallel } from "./parallel.js";
import { refusedByStopping, repeated } from "./repeating.js";
import { type Source, UPLOAD_ID } from "./requests.js";
import { Refused, type Storage, withRepeats } from "./transfer.js";

const PARTS_AT_ONCE = 4;
// The cloud compares an MD5 where the upload has one part, and the gateway makes several of larger contents.
const LARGEST_PART = 16 * 1024 * 1024;
const READ_AT_ONCE = 1024 * 1024;
const ABORT_WITHIN_MS = 5000;
const STORED = 200;
const CONFLICT = 409;

/** What is uploaded, and where to. */
export interface Destination {
  readonly bucket: string;
  readonly object: string;
  readonly contentType: string;
}

/** What CreateUpload is asked for. */
interface Announced extends Destination {
  readonly contentLength: bigint;
  readonly contentMd5: Uint8Array;
}

export class Uploading {
  readonly #connection: Connection;
  readonly #storage: Storage;

  constructor(connection: Connection, storage: Storage) {
    this.#connection = connection;
    this.#storage = storage;
  }

  /** Uploads a document. An upload that fails leaves no parts behind; one whose addresses expire is begun again, once. */
  async upload(source: Source, to: Destination, bounds: Bounds): Promise<UploadedObject> {
    const content = await Content.of(source);
    try {
      return await this.#send(content, to, bounds);
    } finally {
      await content.close();
    }
  }

  /**
   * Uploads the document of a preview and returns its key, in which `${UploadId}` becomes digits of this `requestId` and
   * this content alone. An object of several parts that is there already is the one that an earlier attempt brought; one
   * of a single part has been compared by the gateway, and is another's.
   */
  async bring(source: Source, to: Destination, requestId: string, bounds: Bounds): Promise<string> {
    const content = await Content.of(source);
    try {
      if (!to.object.includes(UPLOAD_ID)) {
        return (await this.#send(content, to, bounds)).object;
      }
      const md5 = hex(await content.md5(bounds.signal));
      const digits = hex(createHash("md5").update(`${requestId.toLowerCase()}\n${md5}`).digest());
      const object = to.object.replaceAll(UPLOAD_ID, digits);
      try {
        return (await this.#send(content, { ...to, object }, bounds)).object;
      } catch (error) {
        if (!content.inOnePart && error instanceof DocPreviewError && error.reason === "OBJECT_EXISTS") {
          return object;
        }
        throw error;
      }
    } finally {
      await content.close();
    }
  }

  async #send(content: Content, to: Destination, bounds: Bounds): Promise<UploadedObject> {
    const contentMd5 = content.inOnePart ? await content.md5(bounds.signal) : new Uint8Array();
    const request = { ...to, contentLength: BigInt(content.length), contentMd5 };
    try {
      return await this.#attempt(content, request, bounds);
    } catch (error) {
      if (error instanceof Expired) {
        return await this.#attempt(content, request, bounds);
      }
      throw error;
    }
  }

  async #attempt(content: Content, request: Announced, bounds: Bounds): Promise<UploadedObject> {
    const { createUpload, completeUpload, abortUpload } = UploadService.method;
    const upload = await this.#call(createUpload, request, bounds);
    const { uploadToken } = upload;
    try {
      const etags = await this.#putAll(content, upload, request.contentMd5, bounds);
      await content.checkUnchanged();
      return await this.#call(completeUpload, { uploadToken, etags }, bounds);
    } catch (error) {
      const soon = { deadline: new Deadline(ABORT_WITHIN_MS) }; // also when the caller's time is over
      await this.#connection.unary(abortUpload, { uploadToken }, soon).catch(() => undefined);
      throw error;
    }
  }

  #call: Connection["unary"] = (method, request, bounds) =>
    repeated(() => this.#connection.unary(method, request, bounds), bounds, refusedByStopping);

  /** Puts all parts and returns their ETags in order. */
  async #putAll(
    content: Content,
    { parts, expireTime }: Upload,
    md5: Uint8Array,
    bounds: Bounds,
  ): Promise<string[]> {
    const whole = parts.length === 1 && md5.length > 0 ? `"${hex(md5)}"` : undefined;
    const etags = new Array<string>(parts.length).fill("");
    await inParallel(parts.entries(), PARTS_AT_ONCE, bounds, async ([index, part], signal) => {
      try {
        etags[index] = await withRepeats(() => this.#put(content, part, whole, signal), { ...bounds, signal });
      } catch (error) {
        if (error instanceof Refused && expireTime !== undefined && Date.now() >= timestampMs(expireTime)) {
          throw new Expired(error.message, error.code, {}, { cause: error });
        }
        if (error instanceof InternalError) {
          await content.checkUnchanged(); // a changed part has another MD5 than the announced one
        }
        throw error;
      }
    });
    return etags;
  }

  /**
   * Puts a part and returns its ETag. `whole` is that of the object when the part is all of it: then a conflict is most
   * likely the content that an attempt has put whose reply was lost, and CompleteUpload tells whether it is.
   */
  async #put(
    content: Content,
    { url, headers, offset, length }: UploadPart,
    whole: string | undefined,
    signal: AbortSignal,
  ): Promise<string> {
    const body = await content.read(Number(offset), Number(length));
    const wanted = whole === undefined ? [STORED] : [STORED, CONFLICT];
    const reply = await this.#storage.exchange({ method: "PUT", url, headers, body, signal }, wanted);
    reply.resume();
    return (reply.statusCode === CONFLICT ? whole : reply.headers.etag) ?? "";
  }
}

/** A part was refused because its address is too old. */
class Expired extends Refused {}

/** The bytes of a document, read as they are needed. */
class Content {
  readonly length: number;
  readonly #bytes: Uint8Array | undefined;
  readonly #file: FileHandle | undefined;
  readonly #modifiedNs: bigint;
  #md5: Uint8Array | undefined;

  private constructor(length: number, bytes: Uint8Array | undefined, file?: FileHandle, modifiedNs = 0n) {
    this.length = length;
    this.#bytes = bytes;
    this.#file = file;
    this.#modifiedNs = modifiedNs;
  }

  static async of(source: Source): Promise<Content> {
    if (typeof source !== "string") {
      return new Content(filled(source.length, "the document"), source);
    }
    if (!(await stat(source)).isFile()) {
      throw refusal(`${source} is not a regular file`); // to open a FIFO would wait for its writer
    }
    const file = await open(source);
    try {
      const stats = await file.stat({ bigint: true });
      return new Content(filled(Number(stats.size), source), undefined, file, stats.mtimeNs);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  async close(): Promise<void> {
    await this.#file?.close();
  }

  async read(offset: number, length: number): Promise<Uint8Array> {
    if (this.#file === undefined) {
      return this.#bytes?.subarray(offset, offset + length) ?? new Uint8Array();
    }
    const { buffer, bytesRead } = await this.#file.read(Buffer.allocUnsafe(length), 0, length, offset);
    if (bytesRead !== length) {
      throw changed();
    }
    return buffer;
  }

  /** Throws when the file has been written to since it was opened: what was sent may be of two versions. */
  async checkUnchanged(): Promise<void> {
    const stats = await this.#file?.stat({ bigint: true });
    if (stats !== undefined && (stats.size !== BigInt(this.length) || stats.mtimeNs !== this.#modifiedNs)) {
      throw changed();
    }
  }

  get inOnePart(): boolean {
    return this.length <= LARGEST_PART;
  }

  async md5(signal?: AbortSignal): Promise<Uint8Array> {
    if (this.#md5 === undefined) {
      const digest = createHash("md5");
      for (let offset = 0; offset < this.length; offset += READ_AT_ONCE) {
        signal?.throwIfAborted();
        digest.update(await this.read(offset, Math.min(READ_AT_ONCE, this.length - offset)));
      }
      this.#md5 = digest.digest();
    }
    return this.#md5;
  }
}

function hex(bytes: Uint8Array): string {
  return Buffer.from(bytes).toString("hex");
}

function filled(length: number, name: string): number {
  if (length === 0) {
    throw refusal(`${name} is empty`);
  }
  return length;
}

function changed(): FailedPrecondition {
  const message = "The document changed while it was uploaded: upload it again (a preview with a new requestId) when it is whole.";
  return new FailedPrecondition(message, status.FAILED_PRECONDITION);
}
