"""What reading a reply costs: the document alone, and the document to the message, in one process taking turns.

Prints microseconds of CPU time for the canned job of 1.2 KB, their ratio, and the pieces. The replies are of many jobs,
each read again and again, as pollers do: the memo of times works as it does for them.

Of the rest of the whole, most is reading the fields of the nodes.

    python bench/wire.py
"""

from __future__ import annotations

import itertools
import statistics
import time
from typing import TYPE_CHECKING

from lxml import etree

from canned_upstream import JOB
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.upstream.wire import responses
from docpreview_gateway.upstream.wire import xml as xml_codec

if TYPE_CHECKING:
    from collections.abc import Callable

BUCKET = "docs-1250000000"
JOBS = 200
TURNS = 40
CALLS = 200

IDS = [f"d{number:032x}" for number in range(JOBS)]
BODIES = [
    JOB.format(job_id=job_id, day=f"2026-{1 + at % 12:02}-{1 + at // 12:02}").encode() for at, job_id in enumerate(IDS)
]
PARSER = xml_codec._PARSER  # noqa: SLF001 - the very parser of replies
MESSAGES = [responses.one_job(body, BUCKET, job_id)[0] for body, job_id in zip(BODIES, IDS, strict=True)]
FIELDS = [{field.name: value for field, value in message.ListFields()} for message in MESSAGES]

PARSE = "hardened parse alone"
WHOLE = "XML to message"
WAYS: dict[str, Callable[[int], object]] = {
    PARSE: lambda at: etree.fromstring(BODIES[at], PARSER),
    WHOLE: lambda at: responses.one_job(BODIES[at], BUCKET, IDS[at]),
    "- document to nodes": lambda at: xml_codec.read(BODIES[at], "Response"),
    "- constructor of the message": lambda at: PreviewJob(**FIELDS[at]),
}


def cpu_microseconds(way: Callable[[int], object], indices: list[int]) -> float:
    begin = time.process_time()
    for at in indices:
        way(at)
    return (time.process_time() - begin) / len(indices) * 1e6


def main() -> None:
    found: dict[str, list[float]] = {name: [] for name in WAYS}
    order = itertools.cycle(range(JOBS))
    for _ in range(TURNS):
        indices = list(itertools.islice(order, CALLS))
        for name, way in WAYS.items():
            found[name].append(cpu_microseconds(way, indices))
    for name, times in found.items():
        print(f"{name:32}{statistics.median(times):7.1f} us")
    low, median, high = statistics.quantiles(
        (whole / parse for whole, parse in zip(found[WHOLE], found[PARSE], strict=True)), n=4
    )
    print(f"{WHOLE} / {PARSE}: {median:.2f} (quartiles {low:.2f} to {high:.2f})")


if __name__ == "__main__":
    main()
