"""What a stranger's bytes in headers and messages leave in the log: nothing of their text."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from docpreview_emulator import Emulator
from tests.faults import http2
from tests.integration.gateway_processes import configuration, running
from tests.integration.identity import Policy
from tests.integration.test_secrets import files, forms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.gateway_processes import Running

GET = b"/docpreview.v1.PreviewJobService/GetPreviewJob"
HEALTH = b"/grpc.health.v1.Health/Check"
REFLECTION = b"/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"
BAD_MESSAGE = b"\xff" * 9
ENDS = {http2.HEADERS, http2.RST_STREAM, http2.GOAWAY}


async def answered(gateway: Running, path: bytes, body: bytes, *extra: tuple[bytes, bytes]) -> None:
    """Make one call, and wait until gRPC has answered it in some way."""
    reader, writer = await asyncio.open_connection("127.0.0.1", gateway.port)
    writer.write(http2.HELLO + http2.call(1, http2.request_headers(path, extra=extra), body))
    buffer = bytearray()
    with suppress(ConnectionError):
        async with asyncio.timeout(20):
            while data := await reader.read(65536):
                buffer += data
                if any(frame.kind in ENDS for frame in http2.frames(buffer)):
                    break
    writer.close()


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as started:
        yield started


async def test_a_token_with_a_wrong_byte_is_in_no_log_line(emulator: Emulator, tmp_path: Path) -> None:
    """Wherever the byte is: in the header's value, in another header, in the path, in the message."""
    policy = Policy(tmp_path / "policy.yaml")
    token = policy.add("one", methods=["*", "ServerReflection"])
    policy.write()
    secret = token.encode()
    proof = (b"authorization", b"Bearer " + secret)
    path = configuration(emulator, tmp_path, policy={"file": str(policy.path)}, reflection=True)
    async with running(path) as gateway:
        for broken in (b"Bearer " + secret + b"\xff", b"\xffBearer " + secret, b"Bearer \xc3\x28" + secret):
            await answered(gateway, GET, b"", (b"authorization", broken))
            await answered(gateway, REFLECTION, b"", (b"authorization", broken))
        for name in (b"user-agent", b"x-request-id", b"traceparent", b"grpc-encoding", b"grpc-timeout", b"x-bin"):
            await answered(gateway, GET, b"", proof, (name, secret + b"\xff"))
        for method in (GET, HEALTH, REFLECTION):
            await answered(gateway, method, BAD_MESSAGE + secret, proof)
        await answered(gateway, b"/x/" + secret + b"\xff", b"", proof)
        await answered(gateway, GET, b"", (b"authorization", b"Bearer " + secret + b"\xff"))
    log = files(tmp_path, "gateway-*.log")
    assert [form for form in forms(token.split("_", 2)[2]) if form in log] == []
    entries = [json.loads(line) for line in log.splitlines()]
    texts = {entry.get("text") for entry in entries if entry["event"] == "log line of a library"}
    assert "Invalid encoding on ..." in texts
    assert not any("message.DecodeError" in str(entry.get("exception")) for entry in entries)
