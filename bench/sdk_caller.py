"""The vendor's SDK asking for jobs, at its best: one client, one kept-alive connection, no logs, no thread switches.

The upstream's port is the argument. For each line of standard input, a number of seconds, it calls for that long and
prints how many calls it made.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time

import requests
from qcloud_cos import CosConfig, CosS3Client

BUCKET = "docs-1250000000"


def client(port: int) -> CosS3Client:
    """A client whose session does not look for proxies and `.netrc` with every call, as the SDK's own would."""
    logging.getLogger("qcloud_cos").setLevel(logging.CRITICAL)
    config = CosConfig(
        Region="ap-chongqing", SecretId="example-id", SecretKey="example-key", Scheme="http", IP="127.0.0.1", Port=port
    )
    session = requests.Session()
    session.trust_env = False
    return CosS3Client(config, session=session)


def main(port: int) -> None:
    cloud = client(port)
    numbers = itertools.count()
    print("ready", flush=True)
    for line in sys.stdin:
        end = time.monotonic() + float(line)
        calls = 0
        while time.monotonic() < end:
            job_id = f"d{next(numbers):032x}"
            reply = cloud.ci_get_doc_job(Bucket=BUCKET, JobID=job_id)
            assert reply["JobsDetail"][0]["JobId"] == job_id
            calls += 1
        print(calls, flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]))
