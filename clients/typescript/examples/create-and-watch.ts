/**
 * Creates a preview job, follows it to its end and prints the addresses of its pages:
 *
 *     node dist/examples/create-and-watch.js dns:///docpreview:50051 docs-1250000000 slides/a.pptx 'previews/a/${Number}.jpg'
 */

import { randomUUID } from "node:crypto";

import { DocPreviewClient, DocPreviewError, PreviewJob_State } from "@docpreview/client";

const [target, bucket, inputObject, object] = process.argv.slice(2);
if (target === undefined || bucket === undefined || inputObject === undefined || object === undefined) {
  console.error("usage: create-and-watch.js TARGET BUCKET INPUT_OBJECT OUTPUT_OBJECT");
  process.exit(2);
}

const client = new DocPreviewClient(target, { userAgent: "create-and-watch" });
try {
  const request = { bucket, inputObject, output: { object }, requestId: randomUUID() }; // safe to repeat, and repeated
  for await (const job of client.createAndWatch(request, { pageUrlTtlMs: 600_000 })) {
    console.log(job.jobId, PreviewJob_State[job.state]);
    job.result?.pages.forEach((page) => console.log(page.pageNumber, page.url));
  }
} catch (error) {
  if (!(error instanceof DocPreviewError)) {
    throw error;
  }
  console.error(`${error.name} ${error.reason}: ${error.message}`, error.violations);
  process.exitCode = 1;
} finally {
  client.close();
}
