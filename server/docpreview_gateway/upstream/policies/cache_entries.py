"""The format of cached jobs: a versioned envelope with the key inside.

An envelope that is malformed, of another version or of another key is a miss, never an error: the shared cache has
values of older and newer versions, and possibly of other programs.
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
    from docpreview_gateway.upstream.policies.freshness import Freshness

AHEAD_SECONDS = 2.0
"""By how much the clocks of two replicas may differ.

What was read later than that, by the clock of the reader, was read by one that is ahead, or before ours was set back:
its freshness would end hours from now.
"""

_VERSION = 1
_HEAD = struct.Struct(">BddH")

FRESH_IN_LUA = f"""
local function is_fresh(envelope, now)
  if #envelope < {_HEAD.size} then return false end
  local version, read_at, fresh_until = struct.unpack('>Bdd', envelope)
  return version == {_VERSION} and read_at - {AHEAD_SECONDS} <= now and now < fresh_until
end
"""
"""`Entry.is_fresh` of an envelope, in the language of Redis scripts; of which key it is, is not looked at."""

NEWER_IN_LUA = f"""
local function is_newer(envelope, other)
  if not envelope or #envelope < {_HEAD.size} or #other < {_HEAD.size} then return false end
  local _, read_at = struct.unpack('>Bd', envelope)
  local _, other_read_at = struct.unpack('>Bd', other)
  return read_at > other_read_at
end
"""
"""Whether an envelope, false for none, was read after another one, in the language of Redis scripts."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A cached read of a job; `job` is None when there is no such job. Instants are Unix times in seconds."""

    job: PreviewJob | None
    read_at: float
    fresh_until: float

    def is_fresh(self, now: float) -> bool:
        """Whether it may be answered at Unix time `now` by this machine's clock."""
        return self.read_at - AHEAD_SECONDS <= now < self.fresh_until


def job_key(bucket: Bucket, job_id: str) -> str:
    """The cache key of a job. Ids are letters and digits, so that no key contains a line break or a brace."""
    return f"job:{bucket.region}:{bucket.name}:{job_id}"


def missing(bucket: Bucket, job_id: str) -> UpstreamError:
    """The error for a cached "no such job"."""
    return UpstreamError(reasons.ERROR_REASON_JOB_NOT_FOUND, f"no job {job_id} in bucket {bucket.name}")


def encode(key: str, entry: Entry) -> bytes:
    """The envelope of an entry. Jobs have no password and no page URLs, so nothing secret is cached."""
    name = key.encode()
    payload = b"" if entry.job is None else entry.job.SerializeToString()
    return _HEAD.pack(_VERSION, entry.read_at, entry.fresh_until, len(name)) + name + payload


def sealed(key: str, job: PreviewJob | None, freshness: Freshness, now: float) -> bytes:
    """The envelope of what was read at Unix time `now`."""
    return encode(key, Entry(job, now, now + freshness.of(job, now)))


def fresh_job(key: str, envelope: bytes, now: float) -> bytes | None:
    """The serialised job in an envelope that is fresh at Unix time `now` by this machine's clock; None otherwise.

    The job is not parsed, which would double the cost of answering from the cache.
    """
    if len(envelope) <= _HEAD.size:
        return None
    version, read_at, fresh_until, length = _HEAD.unpack_from(envelope)
    begin = _HEAD.size + length
    if version != _VERSION or not read_at - AHEAD_SECONDS <= now < fresh_until:
        return None
    if not envelope.startswith(key.encode(), _HEAD.size, begin):
        return None
    return envelope[begin:] if length == len(key) and len(envelope) > begin else None


def decode(key: str, envelope: bytes) -> Entry | None:
    """The entry in an envelope; None when the envelope is malformed, of another version or of another key."""
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


def seen(key: str, envelope: bytes | None, now: float) -> Entry | None:
    """As `decode`; None also without an envelope, and for one that says that it was read hours after `now`."""
    entry = decode(key, envelope) if envelope else None
    return None if entry is None or entry.read_at - AHEAD_SECONDS > now else entry
