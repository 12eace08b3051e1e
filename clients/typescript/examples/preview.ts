/**
 * From a local document to page images on disk:
 *
 *     node dist/examples/preview.js slides.pptx docs-1250000000 pages dns:///docpreview:50051
 */

import { DocPreviewClient, DocPreviewError, PreviewJob_State } from "@docpreview/client";

const [path, bucket, directory = "pages", target = "127.0.0.1:50051"] = process.argv.slice(2);
if (path === undefined || bucket === undefined) {
  console.error("usage: preview.js DOCUMENT BUCKET [DIRECTORY] [TARGET]");
  process.exit(2);
}

const client = new DocPreviewClient(target, { userAgent: "preview" });
try {
  const { files } = await client.preview(path, bucket, directory, {
    onJob: (job) => console.log(job.jobId, PreviewJob_State[job.state]),
    onProgress: ({ pagesDone, pagesTotal }) => console.log(`${pagesDone} of ${pagesTotal} pages`),
  });
  files.forEach((file) => console.log(file.path));
} catch (error) {
  if (!(error instanceof DocPreviewError)) {
    throw error;
  }
  console.error(`${error.name} ${error.reason}: ${error.message}`, error.quota);
  process.exitCode = 1;
} finally {
  client.close();
}
