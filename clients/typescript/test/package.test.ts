import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { fileURLToPath } from "node:url";
import { test } from "node:test";

import { create } from "@bufbuild/protobuf";
import { timestampFromMs } from "@bufbuild/protobuf/wkt";
import ts from "typescript";

import { PreviewJob_State, PreviewJobSchema, toJson, VERSION } from "@docpreview/client";

const root = fileURLToPath(new URL("../../", import.meta.url));

test("the version is the package's", () => {
  const manifest = JSON.parse(readFileSync(`${root}package.json`, "utf8")) as { version: string };
  assert.equal(VERSION, manifest.version);
});

test("a job can be made a string, with its times", () => {
  const job = create(PreviewJobSchema, { jobId: "d1", state: PreviewJob_State.SUCCESS, createTime: timestampFromMs(0) });
  const text = JSON.stringify(toJson(PreviewJobSchema, job));
  assert.equal(text, '{"jobId":"d1","state":"STATE_SUCCESS","createTime":"1970-01-01T00:00:00Z"}');
});

test("the CommonJS build has what the ES modules have", async () => {
  const required = createRequire(import.meta.url)("@docpreview/client") as object;
  const imported = (await import("@docpreview/client")) as object;
  assert.deepEqual(Object.keys(required).filter((name) => name !== "__esModule").sort(), Object.keys(imported).sort());
});

test("the stubs for browsers load nothing of Node.js or gRPC, in either build", () => {
  const loaded = `
    const stubs = require("@docpreview/client/stubs");
    console.log(stubs.PreviewJobService.typeName, Object.keys(require.cache).filter((file) => /grpc|transfer|client.js/.test(file)).length);`;
  assert.equal(run("--input-type=commonjs", loaded), "docpreview.v1.PreviewJobService 0\n");
  const sources = ["stubs.js", ...Array.from(readFileSync(`${root}dist/src/stubs.js`, "utf8").matchAll(/from "\.\/(gen\/[^"]+)"/g), ([, file]) => file)];
  assert(sources.length > 6);
  for (const source of sources) {
    const imports = readFileSync(`${root}dist/src/${source}`, "utf8").matchAll(/from "([^."][^"]*)"/g);
    assert.deepEqual(Array.from(imports, ([, from]) => from?.split("/")[0]).filter((from) => from !== "@bufbuild"), []);
  }
});

function run(...[flag, script]: [string, string]): string {
  return execFileSync(process.execPath, [flag, "--eval", script], { cwd: root, encoding: "utf8" });
}

test("an editor shows what a field of a request means, also in nested messages", () => {
  const text = `
    import type { CreateRequest, ListRequest } from "@docpreview/client";
    export const create: CreateRequest = { inputObject: "a", options: { quality: 80 } };
    export const list: ListRequest = { createdAfter: undefined };`;
  const file = `${root}test/hover.ts`;
  const options = { target: ts.ScriptTarget.ES2022, module: ts.ModuleKind.NodeNext, strict: true, exactOptionalPropertyTypes: true };
  const host: ts.LanguageServiceHost = {
    getScriptFileNames: () => [file],
    getScriptVersion: () => "1",
    getScriptSnapshot: (name) => {
      const content = name === file ? text : ts.sys.readFile(name);
      return content === undefined ? undefined : ts.ScriptSnapshot.fromString(content);
    },
    getCurrentDirectory: () => root,
    getCompilationSettings: () => options,
    getDefaultLibFileName: ts.getDefaultLibFilePath,
    fileExists: (name) => name === file || ts.sys.fileExists(name),
    readFile: ts.sys.readFile,
    directoryExists: ts.sys.directoryExists,
  };
  const service = ts.createLanguageService(host);
  assert.deepEqual(service.getSemanticDiagnostics(file), []);
  for (const [field, meaning] of [
    ["inputObject", /Key of the source document/],
    ["quality", /Image quality in percent/],
    ["createdAfter", /Only jobs created at or after/],
  ] as const) {
    const shown = service.getQuickInfoAtPosition(file, text.indexOf(`${field}:`));
    assert.match(ts.displayPartsToString(shown?.documentation), meaning);
  }
});
