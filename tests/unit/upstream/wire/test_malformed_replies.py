"""Ten thousand mutations of recorded replies: each is a message or an UpstreamError."""

from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest
from google.protobuf.message import Message
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.wire import refusals, responses
from docpreview_gateway.upstream.wire.http import HttpReply

from . import vectors

SAMPLES = [vector.body for vector in vectors.load()]
JOB_ID = "dcf488492340d11edb2a0e3aa2e38c523"
BUCKET = "test-1250000000"
STATUSES = [100, 204, 301, 400, 403, 404, 408, 429, 500, 503, 599]

SPLINTERS = [
    b"<",
    b">",
    b"&",
    b"]]>",
    b"\0",
    b"\xff",
    b"\xed\xa0\x80",
    b"\xef\xbb\xbf",
    b"<!DOCTYPE r [<!ENTITY x SYSTEM 'file:///etc/passwd'>]>",
    b"<!DOCTYPE r SYSTEM 'http://127.0.0.1:1/'>",
    b"<!ENTITY x 'y'>",
    b"&x;",
    b"&#0;",
    b"&#xD800;",
    b"&#x10FFFF;",
    b"<![CDATA[ </JobsDetail> ]]>",
    b"<![CDATA[",
    b"<!-- </Response> -->",
    b"<?xml version='1.0' encoding='utf-16'?>",
    b"<?php echo 1 ?>",
    b"<Response/>",
    b"<Response>",
    b"</Response>",
    b"<JobsDetail/>",
    b"<JobsDetail><JobId>another</JobId></JobsDetail>",
    b"<JobId>another</JobId>",
    b"<State>Deleted</State>",
    b"<Operation><Operation/></Operation>",
    b"<a xmlns='urn:x' xmlns:b='urn:y' b:c='d'/>",
    b"<a>" * 40,
    b"<a>" * 40 + b"</a>" * 40,
    b"<a>" * 5000,
    b"<a/>" * 5000,
    b"x" * 100_000,
    b"-2147483649",
    b"99999999999999999999",
    b"9999-12-31T23:59:59-2359",
    b"0001-01-01T00:00:00+2359",
    "٣".encode(),
]
ENCODINGS = ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-7", "cp037", "gb18030", "shift_jis"]


SPOILERS: list[Callable[[bytes, int, int, Random], bytes]] = [
    lambda body, at, _end, _rnd: body[:at],
    lambda body, at, _end, rnd: body[:at] + bytes([rnd.randrange(256)]) + body[at + 1 :],
    lambda body, at, end, _rnd: body[:at] + body[end:],
    lambda body, at, end, _rnd: body[:end] + body[at:end] + body[end:],
    lambda body, _at, _end, rnd: body.decode(errors="replace").encode(rnd.choice(ENCODINGS), errors="replace"),
    lambda body, _at, _end, _rnd: body + body,
    lambda body, at, _end, rnd: body[:at] + rnd.choice(SPLINTERS) + body[at:],
    lambda body, at, _end, rnd: body[: body.find(b"<", at)] + rnd.choice(SPLINTERS) + body[body.find(b"<", at) :],
]
"""Mutations of a body between two offsets."""


def spoilt(rnd: Random) -> bytes:
    """A recorded reply with one to three mutations."""
    body = rnd.choice(SAMPLES)
    for _ in range(rnd.randrange(1, 4)):
        at, end = sorted((rnd.randrange(len(body) + 1), rnd.randrange(len(body) + 1)))
        body = rnd.choice(SPOILERS)(body, at, end, rnd)
    return body


def read_all_ways(body: bytes) -> list[Message]:
    """The messages parsed from `body`, or none for an UpstreamError. Other exceptions are raised."""
    read: list[Message] = []
    readers = (
        lambda: [responses.created_job(body, BUCKET)[0]],
        lambda: [_about(JOB_ID, responses.one_job(body, BUCKET, JOB_ID)[0])],
        lambda: responses.job_page(body, BUCKET, with_pages=True, requested_cursor="75789").jobs,
        lambda: responses.queue_page(body, BUCKET).queues,
    )
    for reader in readers:
        try:
            read += reader()
        except UpstreamError as error:
            assert error.message  # noqa: PT017 - for every error
    return read


def _about(job_id: str, job: PreviewJob) -> PreviewJob:
    assert job.job_id == job_id
    return job


@pytest.mark.slow
@given(st.randoms(use_true_random=False))
@settings(
    max_examples=10_000,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
def test_a_malformed_reply_is_a_typed_error_or_a_valid_message(rnd: Random) -> None:
    """Messages are valid protobuf and belong to the requested bucket."""
    body = spoilt(rnd)
    for message in read_all_ways(body):
        assert type(message).FromString(message.SerializeToString()) == message
        assert message.bucket == BUCKET  # type: ignore[attr-defined]
        assert not isinstance(message, PreviewJob) or message.job_id
    error = refusals.read(HttpReply(rnd.choice(STATUSES), {"retry-after": body[:9].decode("latin-1")}, body))
    assert error.message.isprintable()
    assert len(error.message) < 400
    assert all(len(value) <= 256 and value.isprintable() for value in error.metadata.values())


@pytest.mark.parametrize("name", ["seed-create", "seed-get"])
def test_a_truncated_reply_is_an_upstream_error(name: str) -> None:
    """Truncated at any byte. HTTP/1.1 without a length does not detect this."""
    [whole] = [vector.body.rstrip() for vector in vectors.load() if vector.name == name]
    for length in range(len(whole)):
        with pytest.raises(UpstreamError):
            responses.created_job(whole[:length], BUCKET)
    assert responses.created_job(whole, BUCKET)[0].job_id == JOB_ID


def test_parsing_malformed_replies_leaks_no_memory() -> None:
    """10,000 more replies take less than 8 MiB.

    The bound is not zero because libxml2 stores each distinct element name for the life of the thread.
    """
    rnd = Random(7)  # noqa: S311 - the same replies each time
    _read_many(rnd, 2_000)
    before = _resident_bytes()
    _read_many(rnd, 10_000)
    assert _resident_bytes() - before < 8 * 1024 * 1024


def _read_many(rnd: Random, times: int) -> None:
    for _ in range(times):
        body = spoilt(rnd)
        read_all_ways(body)
        refusals.read(HttpReply(500, {}, body))


def _resident_bytes() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * 4096
