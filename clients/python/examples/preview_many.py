"""Uploads documents, makes a job of each, follows all jobs in one watch, and downloads the pages of each as it ends.

python preview_many.py docs-1250000000 pages dns:///docpreview:50051 a.pptx b.pdf
"""

import sys
from pathlib import Path

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_client import BlockingClient, DocPreviewError, JobError


def run(client: BlockingClient, bucket: str, directory: Path, documents: list[Path]) -> None:
    """Prints a line for each document."""
    names = {}
    for document in documents:
        uploaded = client.upload(document, bucket)
        job = client.create(bucket, uploaded.object, output_object="out/${RequestToken}/page-${Number}.jpg")
        names[job.job_id] = document.stem
    for event in client.watch_many(bucket, list(names)):
        name = names[event.job_id]
        if isinstance(event, JobError):
            print(name, event.message)
        elif event.state == PreviewJob.STATE_SUCCESS:
            print(name, len(client.download(event, directory / name)), "pages")
        elif event.state == PreviewJob.STATE_FAILED:
            print(name, event.failure.message)


def main() -> None:
    """Reads the command line."""
    if len(sys.argv) < 5:  # noqa: PLR2004 - the four arguments below
        sys.exit("usage: preview_many.py BUCKET DIRECTORY TARGET DOCUMENT...")
    bucket, directory, target, *documents = sys.argv[1:]
    with BlockingClient(target) as client:
        try:
            run(client, bucket, Path(directory), [Path(document) for document in documents])
        except DocPreviewError as error:
            sys.exit(str(error))


if __name__ == "__main__":
    main()
