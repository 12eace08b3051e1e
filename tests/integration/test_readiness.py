"""`/readyz` is not ready for as long as creates with `request_id` cannot succeed, whatever the reason, and says why.

The probe of the chart stays green meanwhile: reads go on, and all replicas share the store and the cloud.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from docpreview_emulator import Emulator
from tests.integration.conftest import BUCKET, REGION, eventually
from tests.integration.gateway_processes import configuration, page, running
from tests.integration.test_failing_records import PROBE, is_refused
from tests.integration.test_record_commands import PDF, World, new_id, world
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_processes import Running
    from tests.redis_server import RedisServer

__all__ = ["world"]


async def is_ready(gateway: Running) -> bool:
    """Whether the gateway says that it is ready; the chart's probe finds it so in any case."""
    assert await page(gateway.admin_port, PROBE) == (200, "ready\n")
    return (await page(gateway.admin_port, "/readyz"))[0] == 200


async def why(gateway: Running) -> str:
    """What `/readyz` says, once it is not ready."""
    await eventually(lambda: is_ready(gateway), expected=False)
    status, text = await page(gateway.admin_port, "/readyz?verbose")
    assert (status, text.splitlines()[0]) == (503, "not ready")
    return (await page(gateway.admin_port, "/readyz"))[1]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[RedisServer]:
    with running_redis(tmp_path) as server:
        yield server


def with_redis(world: World, server: RedisServer) -> Path:
    policy = {"file": str(world.policy.path)}
    return configuration(world.emulator, world.folder, policy=policy, shared_state={"url": server.url})


@pytest.mark.parametrize(
    ("breaks", "mends", "said"),
    [
        (("REPLICAOF 127.0.0.1 1",), (), "read only replica"),
        (("CONFIG SET maxmemory 1",), ("CONFIG SET maxmemory 0",), "used memory > 'maxmemory'"),
        (("ACL SETUSER default -eval",), ("ACL SETUSER default +eval",), "no permissions to run the 'eval' command"),
    ],
    ids=["read-only", "full", "without the right"],
)
async def test_a_redis_server_that_cannot_be_written_is_named_until_it_can(
    world: World, server: RedisServer, breaks: tuple[str, ...], mends: tuple[str, ...], said: str
) -> None:
    async with running(with_redis(world, server)) as gateway:
        await world.create(gateway, new_id())
        assert await is_ready(gateway)
        for command in breaks:
            assert server.command(*command.split()).startswith(b"+OK")
        assert await is_refused(world, gateway)
        text = await why(gateway)
        assert text.startswith("records failing: ")
        assert said in text
        assert "script:" not in text
        for command in mends:
            assert server.command(*command.split()).startswith(b"+OK")
        if mends:  # a replica that becomes a primary is another server, which may lack the last changes
            await eventually(lambda: is_ready(gateway))
            assert not await is_refused(world, gateway)


async def test_a_missing_secret_is_named_from_the_start_on(world: World) -> None:
    """Nobody has made a create yet: the gateway finds it out by itself."""
    async with running(world.config) as gateway:
        await world.create(gateway, new_id())
    (world.folder / "ledger.key").unlink()
    async with running(world.config) as gateway:
        assert "ledger.key_file" in await why(gateway)


@pytest.mark.parametrize("workers", [1, 2])
async def test_a_lost_store_is_named_also_by_a_gateway_with_workers(world: World, workers: int) -> None:
    """Whichever of them has noticed it."""
    async with running(world.config, "--workers", str(workers)) as gateway:
        await world.create(gateway, new_id())
        assert await is_ready(gateway)
        for path in world.folder.glob("creates.db*"):
            path.unlink()
        assert await is_refused(world, gateway)
        assert (await why(gateway)).startswith("records failing: ")


async def test_a_cloud_that_has_never_answered_is_named_until_it_does(tmp_path: Path) -> None:
    """No create with `request_id` is signed before the cloud's time is known. Nobody calls meanwhile."""
    async with Emulator() as emulator:
        port = emulator.port
    async with Emulator(tmp_path / "cloud", port=port) as emulator:
        path = configuration(emulator, tmp_path)
    async with running(path) as gateway:
        assert await is_ready(gateway)
        text = await why(gateway)
        assert text.startswith("cloud failing: no bucket of the cloud can be used; ")
        assert "no connection to the cloud: connection refused" in text
        async with Emulator(tmp_path / "cloud", port=port) as emulator:
            emulator.put_object(BUCKET, REGION, "in/a.pdf", PDF)
            await eventually(lambda: is_ready(gateway))
