"""What is kept in a cache: a versioned envelope around an answer, with the key inside.

An envelope that cannot be read, has another version or belongs to another key is a miss, never an error: caches are
shared with older and newer versions, and with whatever else somebody puts into them.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from google.protobuf.message import DecodeError

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.model.errors import UpstreamError

if TYPE_CHECKING:
    from docpreview_gateway.model.buckets import Bucket

_VERSION = 1
_HEAD = struct.Struct(">BddH")


@dataclass(frozen=True, slots=True)
class Entry:
    """An answer about a job: the job, or None for "there is none". Times are Unix seconds."""

    job: PreviewJob | None
    read_at: float
    fresh_until: float


def job_key(bucket: Bucket, job_id: str) -> str:
    """The key of a job. Ids are letters and digits, so no key holds a line's end or a brace."""
    return f"job:{bucket.region}:{bucket.name}:{job_id}"


def missing(bucket: Bucket, job_id: str) -> UpstreamError:
    """What is raised for the answer that there is no such job."""
    return UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, f"no job {job_id} in bucket {bucket.name}")


def encode(key: str, entry: Entry) -> bytes:
    """The envelope of an entry. Jobs hold no password and no page addresses, so nothing secret is kept."""
    name = key.encode()
    payload = b"" if entry.job is None else entry.job.SerializeToString()
    return _HEAD.pack(_VERSION, entry.read_at, entry.fresh_until, len(name)) + name + payload


def fresh_job(key: str, envelope: bytes, now: float) -> bytes | None:
    """The serialised job in an envelope that is fresh at Unix time `now`; None for all else.

    Reading a job only to write it again would double the cost of answering one that is kept.
    """
    if len(envelope) <= _HEAD.size:
        return None
    version, _, fresh_until, length = _HEAD.unpack_from(envelope)
    begin = _HEAD.size + length
    if version != _VERSION or now >= fresh_until or not envelope.startswith(key.encode(), _HEAD.size, begin):
        return None
    return envelope[begin:] if length == len(key) and len(envelope) > begin else None


def decode(key: str, envelope: bytes) -> Entry | None:
    """The entry in an envelope; None when it is none of ours."""
    name = key.encode()
    begin = _HEAD.size + len(name)
    if len(envelope) < begin or envelope[_HEAD.size : begin] != name:
        return None
    version, read_at, fresh_until, length = _HEAD.unpack_from(envelope)
    if version != _VERSION or length != len(name):
        return None
    if len(envelope) == begin:
        return Entry(None, read_at, fresh_until)
    try:
        return Entry(PreviewJob.FromString(envelope[begin:]), read_at, fresh_until)
    except DecodeError:
        return None
