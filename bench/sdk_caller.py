"""Load generator with the vendor's SDK: one client as in its manual, keep-alive connections, no logs.

The upstream's port and the number of threads are the arguments. For each line of standard input, a number of seconds,
it calls for that long and prints how many calls it made.
"""

from __future__ import annotations

import itertools
import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor

from qcloud_cos import CosConfig, CosS3Client

BUCKET = "docs-1250000000"
NUMBERS = itertools.count()


def client(port: int, threads: int) -> CosS3Client:
    logging.getLogger("qcloud_cos").setLevel(logging.CRITICAL)
    config = CosConfig(
        Region="ap-chongqing",
        SecretId="example-id",
        SecretKey="example-key",
        Scheme="http",
        IP="127.0.0.1",
        Port=port,
        KeepAlive=True,
        PoolMaxSize=threads,
    )
    return CosS3Client(config)


def calls_until(cloud: CosS3Client, end: float) -> int:
    calls = 0
    while time.monotonic() < end:
        job_id = f"d{next(NUMBERS):032x}"
        reply = cloud.ci_get_doc_job(Bucket=BUCKET, JobID=job_id)
        assert reply["JobsDetail"][0]["JobId"] == job_id
        calls += 1
    return calls


def main(port: int, threads: int) -> None:
    cloud = client(port, threads)
    with ThreadPoolExecutor(threads) as pool:
        print("ready", flush=True)
        for line in sys.stdin:
            end = time.monotonic() + float(line)
            print(sum(pool.map(calls_until, [cloud] * threads, [end] * threads)), flush=True)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
