"""The program of the README: a document of this machine becomes page images on disk."""

from docpreview_client import BlockingClient

with BlockingClient("127.0.0.1:50051") as client:
    job, files = client.preview("examples/seven-pages.pdf", "build/pages", bucket="examplebucket-1250000000")
    print(f"{job.raw_state}: {len(files)} pages, from {files[0]}")
