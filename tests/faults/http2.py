"""Minimal HTTP/2 for hostile and very fast callers: frames, and headers without compression."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = 0, 1, 3, 4, 6, 7, 8, 9
END_STREAM = ACK = 0x1
END_HEADERS = 0x4

HEADER_TABLE_SIZE, INITIAL_WINDOW_SIZE = 1, 4
CANCEL = (8).to_bytes(4, "big")


class Frame(NamedTuple):
    """A received frame."""

    kind: int
    flags: int
    stream: int
    payload: bytes


def frame(kind: int, flags: int = 0, stream: int = 0, payload: bytes = b"") -> bytes:
    """The bytes of a frame."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload


def settings(values: dict[int, int] | None = None) -> bytes:
    """A SETTINGS frame."""
    return frame(
        SETTINGS, payload=b"".join(k.to_bytes(2, "big") + v.to_bytes(4, "big") for k, v in (values or {}).items())
    )


HELLO = PREFACE + settings({HEADER_TABLE_SIZE: 0}) + frame(WINDOW_UPDATE, payload=(1 << 30).to_bytes(4, "big"))
"""A client's connection preface. Without a dynamic header table the peer's headers arrive as plain literals."""


def header_block(fields: Iterable[tuple[bytes, bytes]]) -> bytes:
    """A header block of literals that are never indexed (RFC 7541, 6.2.3)."""
    return b"".join(b"\x10" + _text(name) + _text(value) for name, value in fields)


def request_headers(path: str | bytes, *, deadline: str = "", extra: Iterable[tuple[bytes, bytes]] = ()) -> bytes:
    """The header block of a gRPC call; `deadline` in gRPC's notation, such as `100m`."""
    fields = [
        (b":method", b"POST"),
        (b":scheme", b"http"),
        (b":path", path if isinstance(path, bytes) else path.encode()),
        (b":authority", b"localhost"),
        (b"te", b"trailers"),
        (b"content-type", b"application/grpc"),
        *([(b"grpc-timeout", deadline.encode())] if deadline else []),
        *extra,
    ]
    return header_block(fields)


def message(body: bytes) -> bytes:
    """An uncompressed gRPC message."""
    return b"\0" + len(body).to_bytes(4, "big") + body


def call(stream: int, headers: bytes, body: bytes) -> bytes:
    """A whole unary call."""
    return frame(HEADERS, END_HEADERS, stream, headers) + frame(DATA, END_STREAM, stream, message(body))


def frames(buffer: bytearray) -> Iterator[Frame]:
    """The complete frames at the beginning of the buffer, which are removed from it."""
    at = 0
    while len(buffer) - at >= 9:
        length = int.from_bytes(buffer[at : at + 3], "big")
        if len(buffer) - at < 9 + length:
            break
        stream = int.from_bytes(buffer[at + 5 : at + 9], "big") & 0x7FFFFFFF
        yield Frame(buffer[at + 3], buffer[at + 4], stream, bytes(buffer[at + 9 : at + 9 + length]))
        at += 9 + length
    del buffer[:at]


def status(block: bytes) -> int | None:
    """`grpc-status` of a header block that was encoded without a table and without Huffman's code."""
    _, found, rest = block.partition(b"grpc-status")
    return int(rest[1 : 1 + rest[0]]) if found else None


def _text(value: bytes) -> bytes:
    return _integer(len(value)) + value


def _integer(value: int) -> bytes:
    """An integer with a prefix of seven bits (RFC 7541, 5.1)."""
    if value < 127:
        return bytes((value,))
    encoded, rest = bytearray((127,)), value - 127
    while rest >= 128:
        encoded.append(rest % 128 + 128)
        rest //= 128
    return bytes((*encoded, rest))
