"""What strangers may send to the gRPC port: connections full of mutated HTTP/2, made from a seed and a number each."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING

from docpreview.v1 import preview_job_service_pb2 as pb
from docpreview_gateway.model.contract import SERVICES
from tests.faults import http2
from tests.faults.gateway_process import BUCKET

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PATHS = [
    *(f"/{service.full_name}/{method.name}".encode() for service in SERVICES for method in service.methods),
    b"/grpc.health.v1.Health/Check",
    b"/grpc.health.v1.Health/Watch",
    b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
]
BODIES = [
    pb.GetPreviewJobRequest(bucket=BUCKET, job_id="d" + "0" * 32).SerializeToString(),
    pb.BatchGetPreviewJobsRequest(bucket=BUCKET, job_ids=[f"d{n:032x}" for n in range(20)]).SerializeToString(),
    pb.ListPreviewJobsRequest(bucket=BUCKET, page_size=5).SerializeToString(),
    b"",
]
NAMES = [b"te", b"content-type", b"grpc-timeout", b"grpc-encoding", b"grpc-accept-encoding", b"user-agent"]
NAMES += [b"authorization", b"x-request-id", b"traceparent", b"cache-control", b"x-bin", b"cookie", b"host", b"expect"]
VALUES = [b"", b"trailers", b"application/grpc", b"application/json", b"gzip", b"deflate", b"identity", b"1n", b"0S"]
VALUES += [b"99999999H", b"-1S", b"1x", b"*", b"Bearer x.y.z", b"Bearer \xff", b"\x00", b"\r\n", b"=" * 9, b"AAAA"]


NO_TEXT_SHARE = 0.001
"""Share of calls whose path may be no text. Each of these ends a server: so many that others are found beside them."""


def connection(seed: str, number: int) -> Sequence[bytes]:
    """What one connection sends, in pieces with a turn of the peer between them."""
    rng = random.Random(f"{seed}:{number}")  # noqa: S311 - repeatable
    kind = rng.choice(_KINDS)
    pieces = kind(rng)
    if rng.random() < 0.2:
        pieces = [_mutated(rng, piece) for piece in pieces]
    if rng.random() < 0.1:
        whole = b"".join(pieces)
        pieces = [whole[: rng.randrange(len(whole) + 1)]]
    return pieces


def _strange_calls(rng: random.Random) -> list[bytes]:
    """Calls whose headers, frames or messages are a little wrong."""
    pieces = [http2.HELLO if rng.random() < 0.9 else http2.PREFACE]
    for stream in range(1, 2 * rng.randrange(2, 12), 2):
        pieces += _strange_call(rng, stream)
    return pieces


def _strange_call(rng: random.Random, stream: int) -> list[bytes]:
    block = http2.header_block(_fields(rng))
    if rng.random() < 0.1:
        block = _mutated(rng, block)
    flags = http2.END_HEADERS if rng.random() < 0.95 else 0
    flags |= http2.END_STREAM if rng.random() < 0.1 else 0
    body = rng.choice([*BODIES, rng.randbytes(rng.randrange(200)), _mutated(rng, rng.choice(BODIES))])
    message = _strange_message(rng, body)
    ends = http2.END_STREAM if rng.random() < 0.9 else 0
    frames = [http2.frame(http2.HEADERS, flags, stream, block), http2.frame(http2.DATA, ends, stream, message)]
    if rng.random() < 0.2:
        frames.append(http2.frame(http2.RST_STREAM, 0, stream, http2.CANCEL))
    if rng.random() < 0.1:
        rng.shuffle(frames)
    return frames


def _fields(rng: random.Random) -> list[tuple[bytes, bytes]]:
    path = rng.choice(PATHS) if rng.random() < 0.7 else b"/docpreview.v1.PreviewJobService/" + _word(rng)
    if rng.random() < NO_TEXT_SHARE:
        path = _text(rng)
    fields = [(b":method", b"POST"), (b":scheme", b"http"), (b":path", path), (b":authority", b"localhost")]
    fields += [(b"te", b"trailers"), (b"content-type", b"application/grpc")]
    for _ in range(rng.randrange(4)):
        fields.append((rng.choice(NAMES), rng.choice(VALUES) if rng.random() < 0.7 else _text(rng)))
    change = rng.random()
    if change < 0.1:
        del fields[rng.randrange(len(fields))]
    elif change < 0.2:
        fields.append(rng.choice(fields))
    elif change < 0.3:
        at = rng.randrange(len(fields))
        name = fields[at][0]
        fields[at] = name, _word(rng) if name == b":path" else _text(rng)
    elif change < 0.35:
        rng.shuffle(fields)
    elif change < 0.4:
        fields.append((_text(rng) or b"x", _text(rng)))
    return fields


def _word(rng: random.Random) -> bytes:
    return bytes(rng.choices(range(32, 127), k=rng.randrange(30)))


def _text(rng: random.Random) -> bytes:
    """Text, text that is no UTF-8, or much of it."""
    return rng.choice(
        [
            b"/x/\xff",
            b"/" + rng.randbytes(rng.randrange(40)),
            b"/docpreview.v1.PreviewJobService/" + rng.randbytes(8),
            "/docpreview.v1.PreviewJobService/ÿ".encode(),
            b"/" * rng.randrange(1, 2000),
            b"a" * rng.randrange(20_000),
            b"",
            b"/%ff/../..",
        ]
    )


def _strange_message(rng: random.Random, body: bytes) -> bytes:
    """A message whose prefix may be wrong: flag of compression, length."""
    length = len(body) if rng.random() < 0.8 else rng.choice([0, len(body) + 1, 2**20, 2**31, 2**32 - 1])
    flag = 0 if rng.random() < 0.85 else rng.randrange(256)
    return struct.pack("!BI", flag, length) + body


def _frames(rng: random.Random) -> list[bytes]:
    """Frames of any kind, flags and stream, with any payload."""
    pieces = [http2.HELLO]
    for _ in range(rng.randrange(1, 40)):
        payload = rng.randbytes(rng.choice([0, 4, 5, 6, 8, rng.randrange(300)]))
        stream = rng.choice([0, 1, 2, 3, 5, rng.randrange(2**31)])
        pieces.append(http2.frame(rng.randrange(12), rng.randrange(256), stream, payload))
    return pieces


def _settings(rng: random.Random) -> list[bytes]:
    """Settings and windows at and beyond their limits, then a call."""
    values = {rng.randrange(1, 8): rng.choice([0, 1, 2**14, 2**24, 2**31 - 1, 2**31, 2**32 - 1]) for _ in range(3)}
    window = rng.choice([0, 1, 2**31 - 1]).to_bytes(4, "big")
    return [
        http2.PREFACE + http2.settings(values),
        http2.frame(http2.WINDOW_UPDATE, 0, rng.choice([0, 1]), window),
        *_strange_call(rng, 1),
    ]


def _other_protocols(rng: random.Random) -> list[bytes]:
    return rng.choice(
        [
            [b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"],
            [b"\x16\x03\x01" + rng.randbytes(200)],
            [http2.PREFACE[: rng.randrange(len(http2.PREFACE))]],
            [rng.randbytes(rng.randrange(1, 400))],
            [http2.PREFACE, rng.randbytes(rng.randrange(1, 400))],
        ]
    )


def _mutated(rng: random.Random, piece: bytes) -> bytes:
    """The bytes with some changed, removed or repeated."""
    data = bytearray(piece)
    for _ in range(rng.randrange(1, 4)):
        at = rng.randrange(len(data) + 1)
        match rng.randrange(3):
            case 0:
                data[at:at] = rng.randbytes(rng.randrange(1, 4))
            case 1:
                del data[at : at + rng.randrange(1, 4)]
            case _:
                data[at : at + 1] = rng.randbytes(1)
    return bytes(data)


_KINDS: Sequence[Callable[[random.Random], list[bytes]]] = (
    *(_strange_calls,) * 6,
    *(_frames,) * 2,
    _settings,
    _other_protocols,
)
