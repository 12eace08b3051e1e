"""`doctor` connects to each webhook target of the policy, and sends a signed event only when it is told to."""

from __future__ import annotations

import asyncio
import base64
import secrets
import ssl
from typing import TYPE_CHECKING

import pytest
import trustme
import yaml

from docpreview_emulator import Emulator
from docpreview_gateway.doctor.webhook_checks import webhook_findings
from docpreview_gateway.settings.access import PolicySettings
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.edge_process import free_port
from tests.fakes.webhook_receiver import Receiver
from tests.integration.conftest import BUCKET, settings
from tests.integration.identity import Policy

if TYPE_CHECKING:
    from pathlib import Path

    from docpreview_gateway.doctor.diagnosis import Finding


async def findings(folder: Path, url: str, *, send: bool = False, mode: int = 0o600) -> tuple[list[Finding], str]:
    """The findings on a target with this address, and its secret."""
    secret = "whsec_" + base64.b64encode(secrets.token_bytes(32)).decode()
    file, policy = folder / "orders.secret", Policy(folder / "policy.yaml")
    file.write_text(secret)
    file.chmod(mode)
    policy.add("shop", BUCKET, webhooks=["orders"])
    target = {"url": url, "secret_file": str(file)}
    policy.path.write_text(yaml.safe_dump({"version": 1, "webhooks": {"orders": target}, "callers": policy.callers}))
    async with Emulator() as emulator:
        given = settings(emulator, policy=PolicySettings(file=policy.path))
        found = await webhook_findings(given, SystemClock(), send=send)
    assert secret.removeprefix("whsec_") not in repr(found)
    return found, secret


async def test_without_being_told_to_it_connects_and_sends_nothing(tmp_path: Path) -> None:
    async with Receiver().listening() as receiver:
        (found,), _ = await findings(tmp_path, receiver.url)
    assert (found.subject, found.level) == ("webhooks.orders", "ok")
    assert found.result.startswith("accepts connections")
    assert receiver.received == []


async def test_an_event_that_is_asked_for_is_signed_and_of_a_type_of_its_own(tmp_path: Path) -> None:
    async with Receiver().listening() as receiver:
        (found,), secret = await findings(tmp_path, receiver.url, send=True)
    (received,) = receiver.received
    assert (found.level, found.result) == ("ok", "takes a signed event (status 204)")
    assert received.verifies(secret)
    assert received.event["id"] == received.id
    assert received.event["type"] == "dev.docpreview.webhook.test.v1"
    assert {"specversion", "id", "source", "type", "time"} == set(received.event)


@pytest.mark.parametrize(
    ("status", "remedy"),
    [
        (307, "redirects are not followed"),
        (401, "compare its secret with webhooks.orders.secret_file"),
        (404, "correct the path of webhooks.orders.url"),
        (500, "the receiver's log says why"),
    ],
)
async def test_an_answer_that_would_be_tried_again_is_a_problem_that_says_what_to_do(
    tmp_path: Path, status: int, remedy: str
) -> None:
    async with Receiver(answers=[status]).listening() as receiver:
        (found,), _ = await findings(tmp_path, receiver.url, send=True)
    assert found.level == "problem"
    assert f"with status {status}" in found.result
    assert remedy in found.remedy


async def test_a_receiver_that_is_not_there_or_not_trusted_is_a_problem(tmp_path: Path) -> None:
    (silent,), _ = await findings(tmp_path, f"http://127.0.0.1:{free_port()}/")
    assert silent.level == "problem"
    assert silent.result.startswith("no connection to port")
    assert silent.result.endswith(": connection refused")
    assert "networkPolicy.webhooks" in silent.remedy
    (nameless,), _ = await findings(tmp_path, "https://no.such.name.invalid/")
    assert (nameless.level, "does not resolve" in nameless.result) == ("problem", True)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    trustme.CA().issue_cert("localhost").configure_cert(context)
    async with await asyncio.start_server(lambda _r, w: w.close(), "127.0.0.1", 0, ssl=context) as server:
        port = server.sockets[0].getsockname()[1]
        (untrusted,), _ = await findings(tmp_path, f"https://localhost:{port}/", send=True)
    assert (untrusted.level, "not of a trusted authority" in untrusted.result) == ("problem", True)
    assert "an authority that this machine trusts" in untrusted.remedy


async def test_a_secret_that_others_may_read_is_said(tmp_path: Path) -> None:
    async with Receiver().listening() as receiver:
        (mode, _), _ = await findings(tmp_path, receiver.url, mode=0o644)
    assert (mode.level, mode.remedy) == ("warning", f"chmod 600 {tmp_path / 'orders.secret'}")
