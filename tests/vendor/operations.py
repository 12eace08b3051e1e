"""The operations of the suite, in the order of the table: what each has to give, and what is stored then."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.vendor.world import Run


def _is(expected: object) -> Callable[[Run, Any], None]:
    def check(_run: Run, value: Any) -> None:
        assert value == expected

    return check


def _refused(status: int, code: str) -> Callable[[Run, Any], None]:
    return _is({"status": status, "code": code})


def _etag_of_the_document(run: Run, value: Any) -> None:
    assert value == _md5(run.document)


def _put(run: Run, value: Any) -> None:
    _etag_of_the_document(run, value)
    assert run.stored("report.pdf") == run.document


def _length(run: Run, value: Any) -> None:
    assert value == len(run.document)


def _copied(run: Run, value: Any) -> None:
    _etag_of_the_document(run, value)
    assert run.stored("copy.pdf") == run.document


def _in_parts(run: Run, value: Any) -> None:
    assert value == [1, 2, 3]
    assert run.stored("parts.bin") == run.large


def _transferred(run: Run, value: Any) -> None:
    assert value is None
    assert run.stored("transfer.bin") == run.large


def _address_gives_the_document(run: Run, value: Any) -> None:
    assert run.fetch("GET", value) == run.document


def _address_takes_an_object(run: Run, value: Any) -> None:
    run.fetch("PUT", value, b"put by address")
    assert run.stored("put by address.txt") == b"put by address"


def _pages(_run: Run, value: Any) -> None:
    """Of each job its state, and both of its pages."""
    assert value == [["Success", "pages/1.jpg", "pages/2.jpg"]] * 3


def _with_a_token(run: Run, value: Any) -> None:
    _etag_of_the_document(run, value)
    assert run.stored("t.pdf") == run.document


def _buckets(run: Run, value: Any) -> None:
    assert value == [run.bucket]


def _missing(run: Run, value: Any) -> None:
    assert value == run.settings["missingJob"]


def _md5(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()  # noqa: S324 - an ETag


KEYS = ["list/1 a+b&c.txt", "list/2 页面.txt", "list/3.txt"]
"""Keys that signatures and lists have to encode."""
NOTIFY = {"Url": "http://127.0.0.1:9/nobody", "State": "On", "Type": "Url", "Event": "TaskFinish"}

OPERATIONS: dict[str, Callable[[Run, Any], None]] = {
    "create bucket": _is(None),
    "head bucket": _is(None),
    "put object": _put,
    "head object": _length,
    "get object": _etag_of_the_document,
    "get a range": _is("%PDF-"),
    "copy object": _copied,
    "list objects": _is([KEYS[:2], KEYS[2:]]),
    "delete object": _is([KEYS[1:]]),
    "upload in parts": _in_parts,
    "abort an upload": _refused(404, "NoSuchUpload"),
    "transfer manager": _transferred,
    "presigned GET": _address_gives_the_document,
    "presigned PUT": _address_takes_an_object,
    "create jobs": _is(["Submitted"] * 3),
    "get jobs": _pages,
    "list jobs": _is([[2, 1], [0]]),
    "list jobs, oldest first": _is([[0, 1, 2]]),
    "list jobs of a state": _is([[[]], [[2, 1, 0]]]),
    "list jobs of a time": _is([[[]], [[2, 1, 0]]]),
    "list queues": _is("Active"),
    "update queue": _is(["reports", NOTIFY["Url"]]),
    "list buckets of the service": _buckets,
    "temporary key": _with_a_token,
    "temporary key, job": _is("Submitted"),
    "wrong token": _refused(403, "InvalidAccessKeyId"),
    "wrong key": _refused(403, "SignatureDoesNotMatch"),
    "wrong key, job": _refused(403, "SignatureDoesNotMatch"),
    "no such key": _refused(404, "NoSuchKey"),
    "no such bucket": _refused(404, "NoSuchBucket"),
    "no such job": _missing,
    "job without its document": _refused(400, "ResourceNotFound"),
}
"""A check gets the value that the driver printed, or the refusal that the SDK raised."""

OF_JOBS = frozenset(
    {
        *(name for name in OPERATIONS if "job" in name or "queue" in name),
        "list buckets of the service",
    }
)
"""Those that go to the hosts of the document service."""
