"""`doctor` asks the address that the cloud calls back from outside, and believes what has the deployment's secret."""

from __future__ import annotations

import asyncio
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme

from docpreview_emulator import Emulator
from docpreview_gateway.doctor.callback_checks import callback_findings
from docpreview_gateway.settings.sections import CallbackSettings, LedgerSettings
from docpreview_gateway.wiring.gateway import Gateway
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.edge_process import free_port
from tests.integration.conftest import settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.doctor.diagnosis import Finding


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as found:
        yield found


def key(folder: Path, text: str = "k" * 40) -> LedgerSettings:
    path = folder / f"{text[0]}.key"
    path.write_text(text)
    return LedgerSettings(key_file=path)


async def last(emulator: Emulator, url: str, ledger: LedgerSettings) -> Finding:
    callbacks = CallbackSettings(public_url=url, listen="127.0.0.1:1")
    found = await callback_findings(settings(emulator, callbacks=callbacks, ledger=ledger), SystemClock())
    return found[-1]


async def test_an_address_that_leads_to_this_deployment_is_ok_and_a_private_one_a_warning(
    emulator: Emulator, tmp_path: Path
) -> None:
    """What to open in a firewall is said too."""
    port = free_port()
    callbacks = CallbackSettings(public_url=f"http://127.0.0.1:{port}/cb", listen=f"127.0.0.1:{port}")
    given = settings(emulator, callbacks=callbacks, ledger=key(tmp_path))
    async with Gateway(given) as gateway:
        private, found = await callback_findings(given, SystemClock())
        other = await last(emulator, f"http://127.0.0.1:{port}/cb", key(tmp_path, "x" * 40))
        counted = gateway.registry.get_sample_value("docpreview_callbacks_total", {"outcome": "foreign"})
    assert (private.level, "the cloud cannot reach" in private.result) == ("warning", True)
    assert found.level == "ok"
    assert "a firewall has to let POST to this address pass from everywhere" in found.result
    assert (other.level, counted) == ("problem", 1)
    assert "another secret" in other.result


@pytest.mark.parametrize(("says", "told"), [(b"", "the connection broke"), (b"SSH-2.0\r\n\r\n", "no HTTP")])
async def test_what_says_nothing_or_no_http_is_told_in_words(
    emulator: Emulator, tmp_path: Path, says: bytes, told: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(says)
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await last(emulator, f"http://127.0.0.1:{port}/cb", key(tmp_path))
    assert (found.level, told in found.result) == ("problem", True), found


@pytest.mark.parametrize(
    ("head", "said"),
    [
        ("200 OK", "something else answers"),
        ("301 Moved Permanently\r\nLocation: https://x.example.com", "a redirect (301)"),
        ("405 Method Not Allowed", "status 405"),
        ("503 Service Unavailable", "status 503"),
    ],
)
async def test_whatever_else_answers_there_is_a_problem(
    emulator: Emulator, tmp_path: Path, head: str, said: str
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(f"HTTP/1.1 {head}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        found = await last(emulator, f"http://127.0.0.1:{port}/cb", key(tmp_path))
    assert (found.level, said in found.result) == ("problem", True), found


async def test_an_address_without_a_trusted_certificate_or_an_answer_is_a_problem(
    emulator: Emulator, tmp_path: Path
) -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    async with await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        untrusted = await last(emulator, f"https://127.0.0.1:{port}", key(tmp_path))
    assert untrusted.result == "the certificate is not of a trusted authority"
    silent = await last(emulator, f"http://127.0.0.1:{free_port()}", key(tmp_path))
    assert (silent.level, silent.result) == ("problem", "no answer: connection refused")
    nameless = await last(emulator, "https://no.such.name.invalid", key(tmp_path))
    assert (nameless.level, "does not resolve" in nameless.result) == ("problem", True)
