/** A storage over HTTP that does what a test says, and remembers what it was sent. */

import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export interface Sent {
  method: string;
  path: string;
  headers: IncomingMessage["headers"];
  body: Buffer;
}

export type Reply = (sent: Sent, response: ServerResponse) => void | Promise<void>;

export class FakeStorage {
  readonly sent: Sent[] = [];
  readonly #server: Server;

  private constructor(reply: Reply) {
    this.#server = createServer(async (request, response) => {
      const chunks: Buffer[] = [];
      for await (const chunk of request) {
        chunks.push(chunk as Buffer);
      }
      const { method = "", url = "", headers } = request;
      const sent = { method, path: url, headers, body: Buffer.concat(chunks) };
      this.sent.push(sent);
      await reply(sent, response);
    });
  }

  static async serving(reply: Reply): Promise<FakeStorage> {
    const storage = new FakeStorage(reply);
    storage.#server.listen(0, "127.0.0.1");
    await once(storage.#server, "listening");
    return storage;
  }

  get host(): string {
    return `127.0.0.1:${(this.#server.address() as AddressInfo).port}`;
  }

  /** A signed address. */
  url(path: string): string {
    return `http://${this.host}/${path}?q-signature=secret`;
  }

  stop(): void {
    this.#server.closeAllConnections();
    this.#server.close();
  }
}

/** Serves a content as storages do, by ranges too. */
export function serveContent(content: Buffer, { headers }: Sent, response: ServerResponse): void {
  const from = Number(/^bytes=(\d+)-$/.exec(headers.range ?? "")?.[1] ?? 0);
  if (from === 0) {
    response.writeHead(200, { "content-length": content.length }).end(content);
  } else if (from >= content.length) {
    response.writeHead(416, { "content-range": `bytes */${content.length}` }).end();
  } else {
    const range = `bytes ${from}-${content.length - 1}/${content.length}`;
    response.writeHead(206, { "content-range": range, "content-length": content.length - from }).end(content.subarray(from));
  }
}
