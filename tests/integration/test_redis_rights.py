"""The rights of a Redis user that docs/configuration.md names are enough for all that replicas share."""

from __future__ import annotations

import asyncio
import re
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docpreview_emulator import Emulator
from docpreview_gateway.doctor.redis_checks import redis_findings
from docpreview_gateway.settings.sections import SharedStateSettings
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.integration.callback_worlds import called_back, told_at_another_replica
from tests.integration.conftest import BUCKET, REGION
from tests.integration.money import ONE_PAGE

if TYPE_CHECKING:
    from tests.redis_groups import Cluster
    from tests.redis_server import RedisServer

DOCUMENT = Path(__file__).parents[2] / "docs" / "configuration.md"


def documented_rights() -> list[str]:
    found = re.search(r"gateway's own has `([^`]+)`, and `([^`]+)`", DOCUMENT.read_text())
    assert found is not None
    return f"{found[1]} {found[2]}".split()


def with_user(servers: list[RedisServer], url: str) -> str:
    """The URL of a user that has these rights and no others."""
    for server in servers:
        answer = server.command("ACL", "SETUSER", "docpreview", "reset", "on", ">pw", *documented_rights())
        assert answer == b"+OK\r\n"
    return url.replace("://", "://docpreview:pw@")


async def denied(servers: list[RedisServer]) -> bytes:
    """What the servers have refused the user."""
    return b"".join(found for each in servers if b"reason" in (found := each.command("ACL", "LOG")))


@pytest.mark.parametrize("kind", ["server", "cluster"])
async def test_replicas_read_create_and_wake_each_other_with_the_documented_rights(
    redis_server: RedisServer, redis_cluster: Cluster, kind: str
) -> None:
    """Callbacks that come to one replica reach the watchers of the other by its channel."""
    servers = [redis_server] if kind == "server" else redis_cluster.nodes
    url = with_user(servers, redis_server.url if kind == "server" else redis_cluster.url)
    for each in servers:
        each.command("ACL", "LOG", "RESET")
    state = SharedStateSettings.model_validate({"url": url, "namespace": "docs", "timeout_seconds": 1.0})
    async with Emulator() as emulator, asyncio.timeout(60):
        emulator.put_object(BUCKET, REGION, "a.pdf", ONE_PAGE)
        async with (
            called_back(emulator, shared_state=state) as (one, first, base),
            called_back(emulator, shared_state=state) as (other, second, _),
        ):
            # With polls a minute apart, only a message of the other replica is that fast.
            assert await told_at_another_replica(emulator, other, second, base) < 10
            name = str(uuid.uuid4())
            job = await first.create(BUCKET, "a.pdf", output_object="b-${Page}.jpg", request_id=name)
            again = await second.create(BUCKET, "a.pdf", output_object="b-${Page}.jpg", request_id=name)
            assert again.job_id == job.job_id
            await first.wait(BUCKET, job.job_id)
            await second.get(BUCKET, job.job_id)
            for gateway in (one, other):
                for outcome in ("error", "skipped"):
                    labels = {"tier": "shared", "outcome": outcome}
                    assert not gateway.registry.get_sample_value("docpreview_cache_lookups_total", labels)
            found = other.registry.get_sample_value("docpreview_shared_reads_total", {"outcome": "local"})
            assert not found
    findings = await redis_findings("url", url, "docs", has_channels=True, clock=SystemClock())
    assert [each for each in findings if each.level != "ok"] == []
    assert await denied(servers) == b""
