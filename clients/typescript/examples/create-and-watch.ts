/**
 * Creates a preview job, follows it to its end and prints the addresses of its pages:
 *
 *     node dist/examples/create-and-watch.js docs-1250000000 slides/a.pptx 'previews/a/${Number}.jpg' dns:///docpreview:50051
 */

import { DocPreviewClient, DocPreviewError, PreviewJob_State } from "@docpreview/client";

const [bucket, inputObject, object, target = "127.0.0.1:50051"] = process.argv.slice(2);
if (bucket === undefined || inputObject === undefined || object === undefined) {
  console.error("usage: create-and-watch.js BUCKET INPUT_OBJECT OUTPUT_TEMPLATE [TARGET]");
  process.exit(2);
}

const client = new DocPreviewClient(target, { userAgent: "create-and-watch" });
try {
  const request = { bucket, inputObject, output: { object } };
  for await (const job of client.createAndWatch(request, { pageUrlTtlMs: 600_000 })) {
    console.log(job.jobId, PreviewJob_State[job.state]);
    job.result?.pages.forEach((page) => console.log(page.pageNumber, page.url));
  }
} catch (error) {
  if (!(error instanceof DocPreviewError)) {
    throw error;
  }
  console.error(`${error.name} ${error.reason}: ${error.message}`);
  process.exitCode = 1;
} finally {
  client.close();
}
