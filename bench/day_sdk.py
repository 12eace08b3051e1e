"""A service of the realistic day that uses the vendor's SDK: it makes jobs, and polls jobs every two seconds.

The upstream's port is the argument. Lines of standard input: `make NUMBER`, answered with `made ID`, and `follow ID
SECONDS`: ask for the job after so many seconds and then every two, answered with `ended ID POLLS`. One thread calls:
that is the cheapest way to use the SDK (docs/benchmarks.md). Ends with its standard input.
"""

from __future__ import annotations

import heapq
import queue
import sys
import threading
import time

from sdk_caller import BUCKET, client

PAGES = 30
EVERY_SECONDS = 2.0


class Service:
    """Follows jobs in one thread. `lines` are those of standard input; an empty one is its end."""

    def __init__(self, port: int, lines: queue.SimpleQueue[str]) -> None:
        self._cloud = client(port, 1)
        self._lines = lines
        self._due: list[tuple[float, str, int]] = []

    def run(self) -> None:
        while line := self._next_line():
            word, *rest = line.split()
            if word == "make":
                print(f"made {self._make(rest[0])}", flush=True)
            else:
                heapq.heappush(self._due, (time.monotonic() + float(rest[1]), rest[0], 0))

    def _next_line(self) -> str:
        """The next line; until it comes, the polls that are due."""
        while True:
            try:
                return self._lines.get(timeout=max(0.0, self._due[0][0] - time.monotonic()) if self._due else None)
            except queue.Empty:
                self._poll(*heapq.heappop(self._due))

    def _make(self, number: str) -> str:
        reply = self._cloud.ci_create_doc_job(
            Bucket=BUCKET,
            InputObject=f"in/{number}.pptx",
            OutputBucket=BUCKET,
            OutputRegion="ap-chongqing",
            OutputObject=f"out/{number}/${{Number}}.jpg",
        )
        made: str = reply["JobsDetail"]["JobId"]
        return made

    def _poll(self, due: float, job_id: str, polls: int) -> None:
        (job,) = self._cloud.ci_get_doc_job(Bucket=BUCKET, JobID=job_id)["JobsDetail"]
        if job["State"] != "Success":
            heapq.heappush(self._due, (due + EVERY_SECONDS, job_id, polls + 1))
            return
        assert len(job["Operation"]["DocProcessResult"]["PageInfo"]) == PAGES
        print(f"ended {job_id} {polls + 1}", flush=True)


def main(port: int) -> None:
    lines: queue.SimpleQueue[str] = queue.SimpleQueue()
    service = threading.Thread(target=Service(port, lines).run, daemon=True)
    service.start()
    print("ready", flush=True)
    for line in sys.stdin:
        lines.put(line)
    lines.put("")
    service.join()


if __name__ == "__main__":
    main(int(sys.argv[1]))
