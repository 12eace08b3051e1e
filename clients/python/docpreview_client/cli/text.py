"""Formatting of values for people, and sanitizing of received text before it reaches a terminal."""

import math
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from rich.text import Text

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
_TEN_SECONDS = 100
_STYLES = {
    PreviewJob.STATE_RUNNING: "cyan",
    PreviewJob.STATE_SUCCESS: "green",
    PreviewJob.STATE_FAILED: "red",
    PreviewJob.STATE_PAUSED: "yellow",
    PreviewJob.STATE_CANCELLED: "magenta",
}


def plain(text: str) -> str:
    """The text with control and invisible characters escaped, so that a terminal does not interpret them."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def verbatim(text: str) -> Text:
    """The text for rich, without markup and control characters."""
    return Text(plain(text), overflow="fold")


def job_state(job: PreviewJob) -> Text:
    """The state, or the cloud's own name of a state that is newer than this client."""
    if job.state == PreviewJob.STATE_UNSPECIFIED or job.state not in PreviewJob.State.values():
        return verbatim(job.raw_state or "unknown")
    return Text(PreviewJob.State.Name(job.state).removeprefix("STATE_"), style=_STYLES.get(job.state, ""))


def queue_state(queue: PreviewQueue) -> str:
    """The state of a queue."""
    known = queue.state in PreviewQueue.State.values() and queue.state != PreviewQueue.STATE_UNSPECIFIED
    return PreviewQueue.State.Name(queue.state).removeprefix("STATE_") if known else "unknown"


def time(stamp: Timestamp) -> str:
    """A moment in the local zone; empty when it is unset."""
    if not stamp.seconds:
        return ""
    return datetime.fromtimestamp(stamp.seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def span(length: timedelta) -> str:
    """A time to wait in its two largest units, rounded up; below ten seconds to tenths."""
    tenths = math.ceil(10 * length.total_seconds())
    if tenths < _TEN_SECONDS:
        return f"{tenths / 10:g} s"
    seconds = math.ceil(length.total_seconds())
    units = [(unit, size) for unit, size in _UNITS if seconds >= size][:2]
    rest = math.ceil(seconds / units[-1][1]) * units[-1][1]
    parts = []
    for unit, size in units:
        count, rest = divmod(rest, size)
        parts += [f"{count} {unit}"] if count else []
    return " ".join(parts)


def location(place: ObjectLocation) -> str:
    """An object as `bucket/key`, or the known part of it."""
    return "/".join(part for part in (place.bucket, place.object.lstrip("/")) if part)


def pages(job: PreviewJob) -> str:
    """Number of pages; empty before the job has succeeded."""
    if not job.HasField("result"):
        return ""
    failed = f", {job.result.failed_page_count} failed" if job.result.failed_page_count else ""
    return f"{job.result.succeeded_page_count}{failed}"
