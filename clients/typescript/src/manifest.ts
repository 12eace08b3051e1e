/** What a directory of pages says about itself: `.docpreview.json`. */

import { access, constants, mkdir, readdir, readFile, realpath, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";

import { refusal } from "./checking.js";
import { PAGE_NAME } from "./naming.js";

const FILE = ".docpreview.json";
// A download that is killed fetches at most so many pages again.
const WRITTEN_EVERY = 64;

const taken = new Set<string>();

/**
 * Works on a directory, which is made when it is not there, as the only one in this process: two downloads would delete each
 * other's pages. Throws Node's error when nothing can be written to it.
 */
export async function alone<T>(directory: string, work: () => Promise<T>): Promise<T> {
  await mkdir(directory, { recursive: true });
  await access(directory, constants.W_OK);
  const path = await realpath(directory);
  if (taken.has(path)) {
    throw refusal(`another download goes to ${directory}`);
  }
  taken.add(path);
  try {
    return await work();
  } finally {
    taken.delete(path);
  }
}

/** The pages of one job that a directory has. */
export class Manifest {
  readonly #directory: string;
  readonly #jobId: string;
  readonly #pages: Map<string, number>;
  #unwritten = 0;
  #writing: Promise<void> = Promise.resolve();

  private constructor(directory: string, jobId: string, pages: Map<string, number>) {
    this.#directory = directory;
    this.#jobId = jobId;
    this.#pages = pages;
  }

  /** The manifest of the directory for this job. Pages of another job, and what was begun of them, are deleted. */
  static async of(directory: string, jobId: string): Promise<Manifest> {
    const found = await read(join(directory, FILE));
    const same = found.jobId === jobId;
    if (!same) {
      const begun = (await readdir(directory)).filter((name) => name.endsWith(".part") && PAGE_NAME.test(name.slice(0, -5)));
      await Promise.all([...found.pages.keys(), ...begun].map((name) => rm(join(directory, name), { force: true })));
    }
    const manifest = new Manifest(directory, jobId, same ? found.pages : new Map());
    await manifest.write();
    return manifest;
  }

  /** Bytes of a page that is here already; undefined when it is not, or not whole. */
  async has(name: string): Promise<number | undefined> {
    const bytes = this.#pages.get(name);
    const found = bytes === undefined ? undefined : await stat(join(this.#directory, name)).catch(() => undefined);
    return found?.isFile() === true && found.size === bytes ? bytes : undefined;
  }

  async add(name: string, bytes: number): Promise<void> {
    this.#pages.set(name, bytes);
    if (++this.#unwritten >= WRITTEN_EVERY) {
      await this.write();
    }
  }

  /** Writes all at once, one write after the other. */
  async write(): Promise<void> {
    this.#unwritten = 0;
    this.#writing = this.#writing.then(async () => {
      const text = JSON.stringify({ job_id: this.#jobId, pages: Object.fromEntries(this.#pages) });
      const path = join(this.#directory, FILE);
      await writeFile(`${path}.part`, text);
      await rename(`${path}.part`, path);
    });
    await this.#writing;
  }
}

// A file that cannot be read, or that names anything but pages, says nothing.
async function read(path: string): Promise<{ jobId: string; pages: Map<string, number> }> {
  try {
    const { job_id: jobId, pages } = JSON.parse(await readFile(path, "utf8")) as { job_id: string; pages: object };
    const named = Object.entries(pages).filter(([name, bytes]) => PAGE_NAME.test(name) && Number.isSafeInteger(bytes));
    return { jobId, pages: new Map(named) };
  } catch {
    return { jobId: "", pages: new Map() };
  }
}
