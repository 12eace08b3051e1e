"""A gateway that cannot record creates says so, with the file or the server, and goes on with all else."""

from __future__ import annotations

import json
import resource
import sqlite3
from contextlib import AsyncExitStack, closing, contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.integration.conftest import eventually
from tests.integration.gateway_processes import configuration, page, running
from tests.integration.test_record_commands import World, new_id, world
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.integration.gateway_processes import Running

__all__ = ["world"]

PROBE = "/readyz?exclude=cloud&exclude=records"
"""The path that the chart's readiness probe asks."""


async def says(gateway: Running, *words: str) -> bool:
    """Whether `/readyz?verbose` names the records as failing, with these words, while the chart's probe is green."""
    status, text = await page(gateway.admin_port, "/readyz?verbose")
    assert text.splitlines()[0] == ("ready" if status == 200 else "not ready")
    assert await page(gateway.admin_port, PROBE) == (200, "ready\n")
    (line,) = [line for line in text.splitlines() if line.startswith("records ")]
    return line.startswith("records failing: ") and all(word in line for word in words)


async def is_in_order(gateway: Running) -> bool:
    return "records ok\n" in (await page(gateway.admin_port, "/readyz?verbose"))[1]


async def is_refused(world: World, gateway: Running) -> bool:
    """Whether a create with an id is refused because it cannot be recorded."""
    try:
        await world.create(gateway, new_id())
    except grpc.aio.AioRpcError as error:
        return error.code() == grpc.StatusCode.UNAVAILABLE and "cannot be recorded" in (error.details() or "")
    return False


def told(world: World, event: str) -> list[str]:
    """Why, in the lines of the log with this event."""
    lines = [line for path in world.folder.glob("*.log") for line in path.read_text().splitlines()]
    entries = [json.loads(line) for line in lines if line.startswith("{")]
    return [entry.get("why", "") for entry in entries if entry["event"] == event]


async def test_a_full_disk_is_named_with_its_file_until_there_is_room_again(world: World) -> None:
    """RLIMIT_FSIZE keeps every file of the process from growing."""
    async with running(world.config) as gateway:
        await world.create(gateway, new_id())
        assert await is_in_order(gateway)
        usual = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1, usual[1]))
        assert await is_refused(world, gateway)
        assert await says(gateway, "creates.db")
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, usual)
        await eventually(lambda: is_in_order(gateway))
        assert not await is_refused(world, gateway)


async def test_a_store_that_was_deleted_is_named_and_told_once(world: World) -> None:
    """However many creates meet it."""
    async with running(world.config) as gateway:
        await world.create(gateway, new_id())
        for path in world.folder.glob("creates.db*"):
            path.unlink()
        for _ in range(5):
            assert await is_refused(world, gateway)
        assert await says(gateway, "creates.db", "lost")
        _, shown = await page(gateway.admin_port, "/")
        assert f"records failing: {world.folder / 'creates.db'}: the store of creates has lost records" in shown
        assert "/runbooks/store-lost.md" in shown
        (why,) = told(world, "creates cannot be recorded")
        assert str(world.folder / "creates.db") in why


async def test_a_store_that_was_deleted_under_workers_is_on_their_operator_page(world: World) -> None:
    """Which worker it is, its log says."""
    async with running(world.config, "--workers", "2") as gateway:
        await world.create(gateway, new_id())
        for path in world.folder.glob("creates.db*"):
            path.unlink()
        assert await is_refused(world, gateway)
        _, shown = await page(gateway.admin_port, "/")
        assert "records failing: a worker cannot record creates, and its log says why" in shown
        assert "/runbooks/store-lost.md" in shown


@pytest.mark.parametrize("strict", [False, True])
async def test_a_server_that_evicts_keys_refuses_creates_if_that_is_wanted(
    world: World, tmp_path: Path, *, strict: bool
) -> None:
    """Otherwise it is a warning."""
    with running_redis(tmp_path, "--maxmemory-policy", "allkeys-lru", "--maxmemory", "50mb") as server:
        policy = {"file": str(world.policy.path)}
        ledger = {"strict": strict}
        config = configuration(world.emulator, tmp_path, policy=policy, shared_state={"url": server.url}, ledger=ledger)
        async with running(config) as gateway:
            warning = "the server of the store of creates may lose records"

            async def is_warned() -> bool:
                return any("allkeys-lru" in why for why in told(world, warning))

            await eventually(is_warned)
            assert await is_refused(world, gateway) is strict
            assert await says(gateway, "allkeys-lru", f"127.0.0.1:{server.port}") is strict


async def test_a_server_that_is_gone_is_named_without_its_password(world: World, tmp_path: Path) -> None:
    """And told once."""
    with running_redis(tmp_path, "--requirepass", "hushhush") as server:
        url = f"redis://:hushhush@127.0.0.1:{server.port}/0"
        policy = {"file": str(world.policy.path)}
        config = configuration(world.emulator, tmp_path, policy=policy, shared_state={"url": url})
        async with running(config) as gateway:
            assert not await is_refused(world, gateway)
            server.kill()
            for _ in range(3):
                assert await is_refused(world, gateway)
            assert await says(gateway, f"127.0.0.1:{server.port}")
            (why,) = told(world, "creates cannot be recorded")
            assert f"127.0.0.1:{server.port}" in why
            assert "hushhush" not in why


async def test_a_gateway_with_another_secret_than_its_store_makes_no_job_until_the_loss_is_accepted(
    world: World,
) -> None:
    """It would not know the ids that were recorded: `ledger.key` is gone, the records are there."""
    request_id = new_id()
    async with running(world.config) as gateway:
        job = await world.create(gateway, request_id)
    (world.folder / "ledger.key").rename(world.folder / "kept.key")
    async with running(world.config) as gateway:
        with pytest.raises(grpc.aio.AioRpcError, match="cannot be recorded"):
            await world.create(gateway, request_id)
        assert await says(gateway, "creates.db", "ledger.key_file")
        code, text = await world.command("store", "status")
        assert (code, "ledger.key_file" in text) == (1, True)
    (world.folder / "ledger.key").rename(world.folder / "new.key")
    (world.folder / "kept.key").rename(world.folder / "ledger.key")
    async with running(world.config) as gateway:
        assert (await world.create(gateway, request_id)).job_id == job.job_id
    (world.folder / "new.key").rename(world.folder / "ledger.key")
    async with running(world.config) as gateway:
        assert (await world.command("store", "accept-loss"))[0] == 0

        async def goes_on() -> bool:
            return not await is_refused(world, gateway)

        await eventually(goes_on)
    code, text = await world.command("store", "status")
    assert (code, "ledger.key_file" in text, "1 records cannot be read" in text) == (1, False, True)


async def test_a_record_that_cannot_be_read_is_named_and_the_others_are_reconciled(world: World) -> None:
    """By `/readyz?verbose` once a create has met it, by `store status`, and by `reconcile`."""
    ids = [new_id(), new_id()]
    async with running(world.config) as gateway:
        for request_id in ids:
            await world.create(gateway, request_id)
        key = (await world.charged(ids[0])).key
        await world.charged(ids[1])
        with closing(sqlite3.connect(world.folder / "creates.db")) as other, other:
            other.execute("UPDATE creates SET packed = zeroblob(99) WHERE key = ?", (key,))
        with pytest.raises(grpc.aio.AioRpcError, match="cannot be recorded"):
            await world.create(gateway, ids[0])
        assert await says(gateway, "creates.db", key)
        await world.create(gateway, new_id())
        code, text = await world.command("store", "status")
        assert (code, key in text, "1 records" in text) == (1, True, True)
        code, text = await world.command("reconcile", "--since", "2020-01-01")
        assert (code, key in text, "3 jobs of this deployment" in text) == (1, True, True), text


@pytest.mark.parametrize("is_first", [True, False])
async def test_a_gateway_starts_on_a_full_disk_and_records_creates_as_soon_as_there_is_room(
    world: World,
    is_first: bool,  # noqa: FBT001
) -> None:
    """It says so meanwhile. With the files of before, or with none but the secret."""
    request_id = new_id()
    async with running(world.config) as gateway:
        if not is_first:
            await world.create(gateway, request_id)
    if is_first:
        for path in [*world.folder.glob("*.db*"), *world.folder.glob("store.json")]:
            path.unlink()
    async with AsyncExitStack() as stack:
        with full_disk():
            gateway = await stack.enter_async_context(running(world.config))
        assert await is_refused(world, gateway)
        assert await says(gateway, "creates.db")
        limits = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
        resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (limits[1], limits[1]))
        await eventually(lambda: is_in_order(gateway))
        await world.create(gateway, request_id)
        assert world.emulator.accepted_jobs == 1


@contextmanager
def full_disk() -> Iterator[None]:
    """No store of a process that is started meanwhile can be opened: there is room for its log only."""
    usual = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, usual[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, usual)


async def test_a_store_on_a_full_disk_is_not_read_by_commands_and_they_say_what_to_do(world: World) -> None:
    async with running(world.config) as gateway:
        await world.create(gateway, new_id())
    with full_disk():
        code, text = await world.command("store", "status")
    assert code == 3, text
    assert "error: the store cannot be read: " in text
    assert "free some space" in text
