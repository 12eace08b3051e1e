"""XML attacks: each is a typed error, immediately, and nothing is fetched."""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from lxml import etree

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.model.rules import UNWRITABLE
from docpreview_gateway.upstream.wire import refusals
from docpreview_gateway.upstream.wire import xml as xml_codec
from docpreview_gateway.upstream.wire.http import MAX_REPLY_BYTES, HttpReply

LAUGHS = "".join(f'<!ENTITY l{n} "{f"&l{n - 1};" * 10}">' for n in range(1, 10))
LIMIT_SECONDS = 1.0
"""Of the processor. Measured: at most 0.15 s on one core. The rest is for slow machines."""

ATTACKS: dict[str, Callable[[], bytes]] = {
    "file entity": lambda: (
        b'<!DOCTYPE Response [<!ENTITY x SYSTEM "file:///etc/passwd">]><Response><a>&x;</a></Response>'
    ),
    "network entity": lambda: (
        b'<!DOCTYPE Response [<!ENTITY x SYSTEM "http://169.254.169.254/">]><Response><a>&x;</a></Response>'
    ),
    "parameter entity": lambda: (
        b'<!DOCTYPE Response [<!ENTITY % p SYSTEM "http://127.0.0.1/evil.dtd"> %p;]><Response/>'
    ),
    "billion laughs": f'<!DOCTYPE Response [<!ENTITY l0 "lol">{LAUGHS}]><Response>&l9;</Response>'.encode,
    "quadratic blow-up": lambda: (
        b'<!DOCTYPE Response [<!ENTITY a "' + b"x" * 50_000 + b'">]><Response>' + b"&a;" * 50_000 + b"</Response>"
    ),
    "external DTD": lambda: b'<!DOCTYPE Response SYSTEM "http://127.0.0.1:1/x.dtd"><Response/>',
    "empty DTD": lambda: b"<!DOCTYPE Response><Response/>",
    "DTD after a comment": lambda: b"<!-- --><!DOCTYPE Response><Response/>",
    "DTD behind a mark": lambda: b"\xef\xbb\xbf<!DOCTYPE Response><Response/>",
    "DTD in UTF-7": lambda: b'<?xml version="1.0" encoding="utf-7"?>+ADwAIQ-DOCTYPE Response+AD4-<Response/>',
    "DTD in UTF-16": lambda: '<!DOCTYPE Response [<!ENTITY x "y">]><Response>&x;</Response>'.encode("utf-16"),
    "DTD in UTF-16 without mark": lambda: "<!DOCTYPE Response><Response/>".encode("utf-16-le"),
    "DTD in UTF-32": lambda: "<!DOCTYPE Response><Response/>".encode("utf-32"),
    "DTD in EBCDIC": lambda: '<?xml version="1.0" encoding="cp037"?><!DOCTYPE Response><Response/>'.encode("cp037"),
    "undeclared entity": lambda: b"<Response>&x;</Response>",
    "depth 100k": lambda: b"<a>" * 100_000 + b"</a>" * 100_000,
    "depth 33": lambda: b"<a>" * 33 + b"</a>" * 33,
    "200k elements and one": lambda: b"<Response>" + b"<a/>" * 200_000 + b"</Response>",
    "300k elements": lambda: b"<Response>" + b"<a></a>" * 300_000 + b"</Response>",
    "elements behind a comment of end tags": lambda: (
        b"<Response><!--" + b"</" * 210_000 + b"-->" + b"<a/>" * 210_000 + b"</Response>"
    ),
    "20 MB of text": lambda: b"<Response>" + b"x" * 20_000_000 + b"</Response>",
    "unclosed 5 MB token": lambda: b"<Response><" + b"x" * 5_000_000,
    "unclosed 5 MB value": lambda: b'<Response a="' + b"x" * 5_000_000,
    "unclosed 5 MB comment": lambda: b"<Response><!--" + b"x" * 5_000_000,
    "unclosed 5 MB CDATA": lambda: b"<Response><![CDATA[" + b"x" * 5_000_000,
    "200k equal attributes": lambda: b"<Response " + b'a="1" ' * 200_000 + b"/>",
    "two roots": lambda: b"<Response/><Response/>",
    "two documents": lambda: b'<?xml version="1.0"?><Response/><?xml version="1.0"?><Response/>',
    "NUL": lambda: b"<Response>\0</Response>",
    "NUL by reference": lambda: b"<Response>&#0;</Response>",
    "broken UTF-8": lambda: b"<Response>\xff\xfe</Response>",
    "surrogate in UTF-8": lambda: b"<Response>\xed\xa0\x80</Response>",
    "root of another name in a namespace": lambda: b'<a xmlns="Response"/>',
    "nothing": lambda: b"",
    "white space": lambda: b" \n",
    "HTML": lambda: b"<html><body>it works</body></html>",
    "JSON": lambda: b'{"CIStatus":"on"}',
}


@pytest.mark.parametrize("make", ATTACKS.values(), ids=list(ATTACKS))
def test_an_xml_attack_is_a_bad_response_immediately_and_is_not_quoted(make: Callable[[], bytes]) -> None:
    """The error has no cause that could quote the reply."""
    body = make()
    begin = time.thread_time()
    with pytest.raises(UpstreamError) as caught:
        xml_codec.read(body, "Response")
    assert time.thread_time() - begin < LIMIT_SECONDS
    assert caught.value.reason == reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("make", ATTACKS.values(), ids=list(ATTACKS))
def test_an_xml_attack_in_a_refusal_leaves_the_reason_to_the_status(make: Callable[[], bytes]) -> None:
    """The body is ignored."""
    error = refusals.read(HttpReply(503, {}, make()))
    assert error.reason == reasons.ERROR_REASON_UPSTREAM_UNAVAILABLE
    assert error.facts.code == ""


def test_the_parser_reads_no_file_of_an_entity(tmp_path: Path) -> None:
    """Second line of defence, for a document type that the first check misses."""
    secret = tmp_path / "secret"
    secret.write_text("TOP")
    body = f'<!DOCTYPE r [<!ENTITY x SYSTEM "{secret.as_uri()}">]><Response>&x;</Response>'.encode()
    root = etree.fromstring(body, xml_codec._PARSER)
    assert "TOP" not in etree.tostring(root, with_tail=False).decode()
    assert "TOP" not in "".join(map(str, root.itertext()))


@pytest.mark.parametrize(
    "document_type",
    [
        '<!DOCTYPE r SYSTEM "{url}">',
        '<!DOCTYPE r [<!ENTITY x SYSTEM "{url}">]>',
        '<!DOCTYPE r [<!ENTITY % p SYSTEM "{url}"> %p;]>',
    ],
)
def test_the_parser_connects_to_no_address_of_a_document_type(document_type: str) -> None:
    """Second line of defence, as above."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(0)
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/x"
        etree.fromstring((document_type.format(url=url) + "<r/>").encode(), xml_codec._PARSER)
        with pytest.raises(BlockingIOError):
            listener.accept()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"<Response><a><![CDATA[<!-- &amp; ]]></a></Response>", "<!-- &amp;"),
        (b"<Response><a>x<!-- no -->y<?pi no?>z</a></Response>", "xyz"),
        (b"<Response><a>&lt;&#65;&#x4e2d;</a></Response>", "<A中"),
        (b"\xef\xbb\xbf<Response><a>mark</a></Response>", "mark"),
        (b'<?xml version="1.0" encoding="ISO-8859-1"?><Response><a>\xc3\xbc</a></Response>', "ü"),
        (b"<Response><a>\n  x \n</a></Response>", "x"),
        (b"<Response><a/></Response>", ""),
        (b"<Response/>", ""),
        (b'<Response xmlns:x="urn:x" x:y="1"><x:a>no</x:a><a z="1">yes</a></Response>', "yes"),
        (
            b'<Response><xi:include xmlns:xi="http://www.w3.org/2001/XInclude" href="file:///etc/passwd"/></Response>',
            "",
        ),
    ],
)
def test_unusual_but_legal_xml_is_read(body: bytes, text: str) -> None:
    """The encoding is UTF-8, whatever the declaration says."""
    assert xml_codec.text(xml_codec.read(body, "Response"), "a") == text


def test_the_largest_legal_reply_is_read() -> None:
    """The caps are 8 MiB and a depth of 32."""
    frame = len(b"<Response><a></a></Response>")
    body = b"<Response><a>" + b"x" * (MAX_REPLY_BYTES - frame) + b"</a></Response>"
    assert len(xml_codec.text(xml_codec.read(body, "Response"), "a")) == MAX_REPLY_BYTES - frame
    with pytest.raises(UpstreamError, match="larger than"):
        xml_codec.read(body + b" ", "Response")
    assert xml_codec.read_any(b"<a>" * 32 + b"</a>" * 32)[0] == "a"


@pytest.mark.parametrize(
    "body",
    [
        b'<Response xmlns="urn:x"><a>yes</a></Response>',
        b'<x:Response xmlns:x="urn:x"><x:a>yes</x:a></x:Response>',
        b'<Response xmlns="urn:x" xmlns:y="urn:y"><y:a>no</y:a><a>yes</a></Response>',
        b'<Response xmlns="urn:x"><a xmlns="">yes</a></Response>',
        b'<Response xmlns="urn:x"><x:a xmlns:x="urn:x">yes</x:a><!-- a --></Response>',
    ],
    ids=["default", "prefix", "another", "none", "both"],
)
def test_the_namespace_of_the_root_is_dropped(body: bytes) -> None:
    """Elements of other namespaces are other elements."""
    assert xml_codec.text(xml_codec.read(body, "Response"), "a") == "yes"


def test_an_element_that_is_repeated_cannot_be_read() -> None:
    """Nobody knows which of the two is meant; the others can be read, and so can one beside empty ones."""
    root = xml_codec.read(b"<Response><a>1</a><b>2</b><a>3</a><c/><c>4</c></Response>", "Response")
    assert [xml_codec.text(root, name) for name in "bcd"] == ["2", "4", ""]
    assert [len(xml_codec.parts(root, name)) for name in "abcd"] == [2, 1, 2, 0]
    for read in (xml_codec.text, xml_codec.part):
        with pytest.raises(UpstreamError) as caught:
            read(root, "a")
        assert caught.value.reason == reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE


@pytest.mark.parametrize(
    ("inside", "blank"),
    [
        ("", True),
        ("<a/><b> </b><c><d/>\n</c>", True),
        ("<a/>text", False),
        ("text<a/>", False),
        ("<a>text<b/></a>", False),
        ("<a/><a><b>text</b></a>", False),
    ],
)
def test_an_element_is_blank_when_there_is_no_text_in_it(inside: str, *, blank: bool) -> None:
    """A job that says something in a place where nothing is expected is no empty one."""
    root = xml_codec.read(f"<Response><job>{inside}</job></Response>".encode(), "Response")
    job = xml_codec.part(root, "job")
    assert job is not None
    assert xml_codec.is_blank(job) == blank


@pytest.mark.parametrize("bad", ["\0", "\x1b", "\ufffe", "\ud800"])
def test_the_writer_rejects_characters_that_xml_forbids(bad: str) -> None:
    """ValueError, instead of a document that the cloud cannot read."""
    assert UNWRITABLE.search(bad)
    with pytest.raises(ValueError, match=r"XML|surrogates"):
        xml_codec.write("Request", [("a", bad)])
