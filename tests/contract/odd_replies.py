"""A generator of odd replies: the vendor's samples, changed as vendors, proxies and broken connections change them."""

from __future__ import annotations

import gzip
import xml.etree.ElementTree as ET
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

SAMPLES = Path(__file__).parents[1] / "vectors"
OF_CI = {"Server": "tencent-ci", "x-ci-request-id": "NjRhM2ZfYjU=", "Content-Type": "application/xml"}

READS = {
    "get": ["seed-get", "failed-job", "paused-job", "spreadsheet-pages", "user-data", "watermark-ignored"],
    "create": ["seed-create"],
    "list_jobs": ["seed-list", "list-repeated-token", "list-entry-2023"],
    "list_queues": ["queues", "queues-missing"],
}
"""Samples with jobs or queues, by the operation that they answer."""

REFUSALS = ["error-ci", "error-cos", "error-unbound"]

VENDOR_NAMESPACES = [
    "http://www.qcloud.com/document/product/436/7751",
    "https://cloud.tencent.com/document/product/436",
    "http://s3.amazonaws.com/doc/2006-03-01/",
]
"""Namespaces that the vendor's SDK removes; it cannot read replies with others."""

PAGES = [
    b"",
    b"<html><head><title>404 Not Found</title></head><body><center>nginx</center></body></html>",
    b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0//EN" "x"><html><body>login</body></html>',
    b"<html xmlns='http://www.w3.org/1999/xhtml'><body>well-formed</body></html>",
    b"no healthy upstream",
    b'{"code": "NoSuchJob", "message": "gone", "request_id": "1"}',
    b'{"CIStatus":"on"}',
    b"<Error><Code>NoSuchKey</Code><Message>m</Message><Resource>/doc_jobs</Resource><RequestId>1</RequestId></Error>",
    b"<Error><Code>NoSuchBucket</Code><RequestId>1</RequestId><HostId>h</HostId></Error>",
    b"<Error><Code>AccessDenied</Code><Message>Request has expired</Message></Error>",
    b"<Response/>",
    b"<Response><Message>404</Message></Response>",
    b"<wsdl><Response><NonExistJobIds>d1</NonExistJobIds></Response></wsdl>",
]
PROXIES: list[dict[str, str]] = [
    {},
    {"Server": "nginx"},
    {"Server": "cloudflare", "Via": "1.1 proxy"},
    {"Server": "MinIO", "x-amz-request-id": "17AB"},
    {"Server": "tencent-cos", "x-cos-request-id": "NjRhM2ZfYjU="},
    {"Server": "squid", "X-Squid-Error": "ERR_ACCESS_DENIED 0", "Retry-After": "Wed, 21 Oct 2026 07:28:00 GMT"},
    {"Retry-After": "86400", "Date": "Mon, 01 Jan 99999999999999999999 00:00:00 GMT"},
]
STATUSES = [200, 200, 204, 301, 302, 307, 400, 401, 403, 404, 404, 404, 407, 408, 413, 429, 500, 502, 503, 504]

WORDS = [
    *("", "-", "0", "-1", "1e3", "99999999999999999999", "JPG", "Png", "SUCCESS", "failed", "Deleted"),
    *("页/ü", "a b", " x "),
]
TIMES = [
    *("2022-09-14T17:15:43+08:00", "2022-09-14T09:15:43Z", "2022-09-14T05:15:43-0400", "2022-09-14T14:45:43+0530"),
    *("2022-09-14 17:15:43", "yesterday", "-", "", "9999-12-31T23:59:59-1200", "0001-01-01T00:00:00+1400"),
]


@dataclass(frozen=True)
class OddReply:
    """A reply to an operation, and how it was made."""

    operation: str
    status: int
    headers: dict[str, str]
    body: bytes = field(repr=False)
    made: tuple[str, ...] = ()

    @property
    def wire(self) -> bytes:
        """The reply as it is sent."""
        if self.status == 204:
            return b"HTTP/1.1 204 No Content\r\n\r\n"
        lines = [f"HTTP/1.1 {self.status} Odd", f"Content-Length: {len(self.body)}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        return "\r\n".join([*lines, "", ""]).encode() + self.body

    @property
    def plain(self) -> bytes:
        """The body as the vendor wrote it."""
        return gzip.decompress(self.body) if "gzip" in self.made else self.body


def odd_reply(rnd: Random) -> OddReply:
    """A sample with one to four changes, or the page of a stranger."""
    operation = rnd.choices(list(READS), [4, 1, 2, 1])[0]
    if rnd.random() < 0.2:
        return OddReply(operation, rnd.choice(STATUSES), rnd.choice(PROXIES), rnd.choice(PAGES), ("page",))
    is_refusal = rnd.random() < 0.15
    name = rnd.choice(REFUSALS if is_refusal else READS[operation])
    body = (SAMPLES / name / "reply.xml").read_bytes()
    status = rnd.choice([200, 400, 403, 404]) if is_refusal else 200
    reply = OddReply(operation, status, OF_CI, body, (name,))
    trees = rnd.sample(list(TREE_CHANGES), rnd.randrange(3))
    if trees:
        root = ET.fromstring(body)  # noqa: S314 - the samples are the project's own
        for change in trees:
            TREE_CHANGES[change](root, rnd)
        reply = replace(reply, body=ET.tostring(root, encoding="utf-8"), made=(*reply.made, *trees))
    for name in rnd.sample(list(REPLY_CHANGES), rnd.randrange(3)):
        reply = REPLY_CHANGES[name](replace(reply, made=(*reply.made, name)), rnd)
    return reply


def _any(root: ET.Element, rnd: Random) -> ET.Element:
    return rnd.choice(list(root.iter()))


def _leaf(root: ET.Element, rnd: Random) -> ET.Element:
    return rnd.choice([element for element in root.iter() if not len(element)] or [root])


def _parent(root: ET.Element, rnd: Random) -> ET.Element:
    return rnd.choice([element for element in root.iter() if len(element)] or [root])


def _shuffle(root: ET.Element, rnd: Random) -> None:
    for element in root.iter():
        element[:] = rnd.sample(list(element), len(element))


def _repeat(root: ET.Element, rnd: Random) -> None:
    parent = _parent(root, rnd)
    if len(parent):
        copy = ET.fromstring(ET.tostring(rnd.choice(list(parent))))  # noqa: S314 - as above
        if rnd.random() < 0.5 and not len(copy):
            copy.text = rnd.choice(WORDS)
        parent.insert(rnd.randrange(len(parent) + 1), copy)


def _empty(root: ET.Element, rnd: Random) -> None:
    _any(root, rnd).clear()


def _remove(root: ET.Element, rnd: Random) -> None:
    parent = _parent(root, rnd)
    if len(parent):
        parent.remove(rnd.choice(list(parent)))


def _rename(root: ET.Element, rnd: Random) -> None:
    element = _any(root, rnd)
    element.tag = rnd.choice([element.tag.lower(), element.tag.upper(), element.tag.swapcase(), "Other", "JobId"])


def _word(root: ET.Element, rnd: Random) -> None:
    _leaf(root, rnd).text = rnd.choice(WORDS)


def _time(root: ET.Element, rnd: Random) -> None:
    for element in root.iter():
        if element.tag.endswith("Time"):
            element.text = rnd.choice(TIMES)


def _case(root: ET.Element, rnd: Random) -> None:
    for element in root.iter():
        if element.tag in {"TgtType", "State"} and element.text:
            element.text = rnd.choice([element.text.upper(), element.text.lower(), element.text.swapcase()])


def _format(root: ET.Element, rnd: Random) -> None:
    for element in root.iter("TgtType"):
        element.text = rnd.choice(["JPG", "PNG", "Pdf", "jpg", "webp"])


def _another_id(root: ET.Element, rnd: Random) -> None:
    for element in root.iter():
        if element.tag in {"JobId", "QueueId"} and rnd.random() < 0.5:
            element.text = "d" + "0" * 32


def _unknown(root: ET.Element, rnd: Random) -> None:
    unknown = ET.SubElement(_parent(root, rnd), "Progress")
    unknown.text = "50"
    if rnd.random() < 0.3:
        ET.SubElement(unknown, "JobId").text = "another"


def _attribute(root: ET.Element, rnd: Random) -> None:
    _any(root, rnd).set("type", "string")


def _missing_ids(root: ET.Element, rnd: Random) -> None:
    for name in ("NonExistJobIds", "NonExistPIDs"):
        ET.SubElement(root, name).text = rnd.choice(["dcf488492340d11edb2a0e3aa2e38c523", "a,b", "", "pone, ptwo"])


TREE_CHANGES: dict[str, Callable[[ET.Element, Random], None]] = {
    "shuffle": _shuffle,
    "repeat": _repeat,
    "empty": _empty,
    "remove": _remove,
    "rename": _rename,
    "word": _word,
    "time": _time,
    "case": _case,
    "format": _format,
    "another id": _another_id,
    "unknown": _unknown,
    "attribute": _attribute,
    "missing ids": _missing_ids,
}


def _namespace(reply: OddReply, rnd: Random) -> OddReply:
    uri = rnd.choice([*VENDOR_NAMESPACES, "urn:x"]).encode()
    root = rnd.choice([b"Response", b"Error", b"JobsDetail"])
    return replace(reply, body=reply.body.replace(b"<" + root, b"<" + root + b' xmlns="' + uri + b'"'))


def _prefix(reply: OddReply, _rnd: Random) -> OddReply:
    body = reply.body.replace(b"</", b"</ci:").replace(b"<Response", b'<Response xmlns:ci="urn:ci"')
    opened = [b"<ci:" + part if part[:1].isalpha() else b"<" + part for part in body.split(b"<")[1:]]
    return replace(reply, body=b"".join(opened))


def _gzip(reply: OddReply, rnd: Random) -> OddReply:
    encoding = rnd.choice(["gzip", "GZIP", "x-gzip"])
    return replace(reply, body=gzip.compress(reply.body), headers={**reply.headers, "Content-Encoding": encoding})


def _false_encoding(reply: OddReply, rnd: Random) -> OddReply:
    encoding = rnd.choice(["gzip", "deflate", "br", "identity", "gzip, gzip"])
    return replace(reply, headers={**reply.headers, "Content-Encoding": encoding})


def _cut(reply: OddReply, rnd: Random) -> OddReply:
    return replace(reply, body=reply.body[: rnd.randrange(len(reply.body) + 1)])


def _without_marks(reply: OddReply, rnd: Random) -> OddReply:
    return replace(reply, headers=rnd.choice(PROXIES))


def _one_mark(reply: OddReply, rnd: Random) -> OddReply:
    name = rnd.choice(["Server", "x-ci-request-id"])
    return replace(reply, headers={name: OF_CI[name]})


def _status(reply: OddReply, rnd: Random) -> OddReply:
    return replace(reply, status=rnd.choice(STATUSES))


def _space(reply: OddReply, rnd: Random) -> OddReply:
    gap = rnd.choice([b"\r\n\t", b" ", b"<!-- JobId -->", b"<?pi x?>"])
    return replace(reply, body=reply.body.replace(b"><", b">" + gap + b"<"))


def _front(reply: OddReply, rnd: Random) -> OddReply:
    return replace(reply, body=rnd.choice([b"\xef\xbb\xbf", b" \n", b"<!-- x -->", b"\0"]) + reply.body)


def _twice(reply: OddReply, _rnd: Random) -> OddReply:
    return replace(reply, body=reply.body + reply.body)


def _utf16(reply: OddReply, _rnd: Random) -> OddReply:
    return replace(reply, body=reply.body.decode(errors="replace").encode("utf-16"))


REPLY_CHANGES: dict[str, Callable[[OddReply, Random], OddReply]] = {
    "namespace": _namespace,
    "prefix": _prefix,
    "gzip": _gzip,
    "false encoding": _false_encoding,
    "cut": _cut,
    "without marks": _without_marks,
    "one mark": _one_mark,
    "status": _status,
    "space": _space,
    "front": _front,
    "twice": _twice,
    "utf-16": _utf16,
}
