"""Creates a preview job, follows it to its end and prints the addresses of its pages.

python create_and_watch.py docs-1250000000 slides/a.pptx 'previews/a/${Number}.jpg' dns:///docpreview:50051
"""

import asyncio
import sys
from datetime import timedelta
from uuid import uuid4

from docpreview_client import ClientOptions, DocPreviewClient, DocPreviewError


async def run(bucket: str, input_object: str, output_object: str, target: str) -> None:
    """Creates the job and prints its states and page URLs."""
    async with DocPreviewClient(target, options=ClientOptions(user_agent="create-and-watch")) as client:
        jobs = client.create_and_watch(
            bucket,
            input_object,
            output_object=output_object,
            request_id=str(uuid4()),  # creating is safe to repeat, and repeated
            page_url_ttl=timedelta(minutes=10),
        )
        async for job in jobs:
            print(job.job_id, job.raw_state)
            for page in job.result.pages:
                print(page.page_number, page.url)


def main() -> None:
    """Reads the command line."""
    arguments = [*sys.argv[1:], "127.0.0.1:50051"][:4]
    if len(arguments) != 4:  # noqa: PLR2004 - the four arguments below
        sys.exit("usage: create_and_watch.py BUCKET INPUT_OBJECT OUTPUT_TEMPLATE [TARGET]")
    bucket, input_object, output_object, target = arguments
    try:
        asyncio.run(run(bucket, input_object, output_object, target))
    except DocPreviewError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
