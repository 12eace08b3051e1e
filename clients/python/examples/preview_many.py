"""Turns many documents into page images, eight at a time: each has its own result, whatever becomes of the others.

python preview_many.py docs-1250000000 pages dns:///docpreview:50051 a.pptx b.xlsx
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from docpreview_client import BlockingClient, DocPreviewError, PreviewJob

AT_A_TIME = 8


def preview(client: BlockingClient, bucket: str, document: Path, directory: Path) -> tuple[bool, str]:
    """Saves the pages of one document; returns whether it has succeeded, and how it went."""
    try:
        # Without `output_object` the client names the results as their kind needs it, also those of spreadsheets.
        job, files = client.preview(document, directory, bucket=bucket)
    except (DocPreviewError, OSError, ValueError) as error:
        return False, str(error)
    if job.state == PreviewJob.STATE_SUCCESS:
        return True, f"{len(files)} pages"
    return False, job.failure.message or "the job was cancelled"


def main() -> None:
    """Reads the command line."""
    if len(sys.argv) < 5:  # noqa: PLR2004 - the four arguments below
        sys.exit("usage: preview_many.py BUCKET DIRECTORY TARGET DOCUMENT...")
    bucket, directory, target, *names = sys.argv[1:]
    documents = [Path(name) for name in names]
    if len({document.name for document in documents}) < len(documents):
        sys.exit("Two documents have the same name, and would share a directory: preview them one after the other.")
    failed = 0
    with BlockingClient(target) as client, ThreadPoolExecutor(AT_A_TIME) as threads:

        def one(document: Path) -> tuple[bool, str]:
            return preview(client, bucket, document, Path(directory, document.name))

        for document, (succeeded, text) in zip(documents, threads.map(one, documents), strict=True):
            print(document.name, text)
            failed += not succeeded
    if failed:
        sys.exit(f"{failed} of {len(documents)} documents have no pages")


if __name__ == "__main__":
    main()
