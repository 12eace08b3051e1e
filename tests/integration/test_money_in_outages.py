"""Page budgets and ids while the store, the disk or a clock fails: callers may wait, nothing is made uncounted."""

from __future__ import annotations

import asyncio
import resource
import socket
import uuid
from contextlib import AsyncExitStack, asynccontextmanager, closing, suppress
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from docpreview_gateway.creates import redis_scripts as scripts
from docpreview_gateway.wiring.gateway import Gateway
from tests.faults.proxy import FaultMix, FlakyProxy
from tests.integration.conftest import OTHER_BUCKET, until
from tests.integration.gateway_processes import configuration, page, running
from tests.integration.money import LEDGER, charged, site
from tests.machine_clock import MachineClock
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.integration.money import Caller, Site
    from tests.redis_server import RedisServer

A, B = (str(uuid.UUID(int=number, version=4)) for number in (1, 2))
DURABLE = ("--appendonly", "yes", "--appendfsync", "always")


def budget(per_day: int, **more: Any) -> dict[str, dict[str, Any]]:
    """A caller `poor` with a budget, each of whose creates may make one page."""
    return {"poor": {"budget": {"per_day": per_day, "estimate": 1} | more}}


def shared(server: RedisServer) -> dict[str, Any]:
    return {"shared_state": {"url": server.url, "ledger_timeout_seconds": 3}, "replicas": 2}


async def spent(caller: Caller, times: int, name: str) -> list[str]:
    """The reasons of so many creates to outputs of their own; empty: it was made."""
    answers = [await caller.answer(output=f"previews/{name}-{number}-${{Number}}.jpg") for number in range(times)]
    return [answer.reason for answer in answers]


async def test_four_outages_of_redis_do_not_hand_the_budget_out_again(tmp_path: Path) -> None:
    """A gateway that counted by itself while Redis was down gave the whole budget with each outage."""
    with running_redis(tmp_path, *DURABLE) as redis:
        async with (
            site(tmp_path, budget(3), hold=False) as here,
            Gateway(here.settings(**shared(redis))) as gateway,
            here.caller(gateway, "poor") as caller,
        ):
            assert await spent(caller, 1, "first") == [""]
            for number in range(4):
                redis.kill()
                assert set(await spent(caller, 3, f"outage{number}")) == {"LIMITER_UNAVAILABLE"}
                redis.start()
                await until_counted(caller)
            assert (await spent(caller, 3, "last")) == ["", "", "PAGE_BUDGET_EXHAUSTED"]
            assert here.emulator.accepted_jobs == await charged(caller) == 3


async def test_two_replicas_cut_off_from_redis_make_no_page_that_is_not_counted(tmp_path: Path) -> None:
    """Without `outage_pages` creates of callers with budgets wait for the server."""
    with running_redis(tmp_path, *DURABLE) as redis:
        async with site(tmp_path, budget(4), hold=False) as here, replicas(here, redis) as (one, other):
            assert await spent(one, 1, "one") == await spent(other, 1, "other") == [""]
            redis.kill()
            reasons = await asyncio.gather(spent(one, 4, "one-out"), spent(other, 4, "other-out"))
            assert {reason for each in reasons for reason in each} == {"LIMITER_UNAVAILABLE"}
            redis.start()
            await until_counted(one)
            await until_counted(other)
            reasons = await asyncio.gather(spent(one, 3, "one-in"), spent(other, 3, "other-in"))
            assert sorted(reason for each in reasons for reason in each) == ["", "", *["PAGE_BUDGET_EXHAUSTED"] * 4]
            assert here.emulator.accepted_jobs == 4


@pytest.mark.slow
async def test_outage_pages_bound_what_replicas_make_while_redis_is_down_and_are_counted(tmp_path: Path) -> None:
    """Each replica has leased two pages, and spends them before the server is back. Then all that was made is used."""
    with running_redis(tmp_path, *DURABLE) as redis:
        callers = budget(8, outage_pages=2)
        async with site(tmp_path, callers, hold=False) as here, replicas(here, redis) as (one, other):
            assert await spent(one, 1, "one") == await spent(other, 1, "other") == [""]
            # Leases are drawn every 15 seconds, and count as reserved.
            await until_counted(one, used=2, reserved=4)
            redis.kill()
            reasons = await asyncio.gather(spent(one, 4, "one-out"), spent(other, 4, "other-out"))
            assert [*reasons] == [["", "", "LIMITER_UNAVAILABLE", "LIMITER_UNAVAILABLE"]] * 2
            assert here.emulator.accepted_jobs == 6
            redis.start()
            # Handed over with the next renewal, which leases what the budget has left.
            await until_counted(one, used=6)
            reasons = await asyncio.gather(spent(one, 3, "one-in"), spent(other, 3, "other-in"))
            assert here.emulator.accepted_jobs <= 8


@asynccontextmanager
async def replicas(here: Site, redis: RedisServer) -> AsyncIterator[tuple[Caller, Caller]]:
    """The caller `poor` at each of two gateways that share a server."""
    async with AsyncExitStack() as stack:
        callers = []
        for name in ("one", "other"):
            values = here.settings(state_dir=here.folder / name, **shared(redis))
            gateway = await stack.enter_async_context(Gateway(values))
            callers.append(await stack.enter_async_context(here.caller(gateway, "poor")))
        yield callers[0], callers[1]


async def until_counted(caller: Caller, used: int | None = None, reserved: int | None = None) -> None:
    """Wait until the caller's pages can be counted, and are so many in this day; None: any number."""
    async with asyncio.timeout(60):
        while True:
            with suppress(grpc.aio.AioRpcError):
                found = await caller.pages()
                if all(wanted in {None, number} for wanted, number in zip((used, reserved), found, strict=True)):
                    return
            await asyncio.sleep(0.1)


async def test_a_full_disk_lets_no_create_of_a_budget_pass_while_all_else_stays_ready(tmp_path: Path) -> None:
    """RLIMIT_FSIZE keeps every file of the process from growing. Reads go on, and creates that nobody counts."""
    async with site(tmp_path, budget(100)) as here:
        path = configuration(here.emulator, tmp_path, **here.policed)
        async with running(path) as gateway, here.caller(gateway.port, "poor") as caller:
            job = await caller.create()
            usual = resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE)
            resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, (1, usual[1]))
            assert set(await spent(caller, 3, "full")) == {"LIMITER_UNAVAILABLE"}
            assert (await caller.answer(request_id=A)).reason == "LEDGER_UNAVAILABLE"
            assert here.emulator.accepted_jobs == 1
            assert (await page(gateway.admin_port, "/readyz"))[0] == 503
            assert await page(gateway.admin_port, "/readyz?exclude=records") == (200, "ready\n")
            assert (await caller.answer(request_id=A)).reason == "LEDGER_UNAVAILABLE"
            resource.prlimit(gateway.process.pid, resource.RLIMIT_FSIZE, usual)
            assert (await caller.create(request_id=A)).job_id != job.job_id
            assert await caller.pages() == (0, 2)


async def test_our_clock_a_day_ahead_forgets_no_id_and_hands_out_no_budget(tmp_path: Path) -> None:
    """Neither while the gateway runs nor at a start with such a clock: only the cloud's time counts."""
    clock = MachineClock(tmp_path / "clock")
    async with site(tmp_path, budget(2), hold=False) as here:
        path = configuration(here.emulator, tmp_path, ledger=LEDGER, **here.policed)
        async with running(path, variables=clock.variables) as gateway, here.caller(gateway.port, "poor") as caller:
            job = await caller.create(request_id=A)
            for hours in (25, 24 * 40, -24 * 40):
                clock.ahead(hours)
                assert (await caller.create(request_id=A)).job_id == job.job_id
            clock.ahead(25)
            await gateway.kill()
        async with running(path, variables=clock.variables) as gateway, here.caller(gateway.port, "poor") as caller:
            assert (await caller.create(request_id=A)).job_id == job.job_id
            assert await spent(caller, 2, "later") == ["", "PAGE_BUDGET_EXHAUSTED"]
            assert await charged(caller) == here.emulator.accepted_jobs == 2


FORGED = {
    "ten days ahead": formatdate(1_890_000_000, usegmt=True),
    "a huge year": "Sun, 29 Nov 99999 08:00:00 GMT",
    "no date": "never",
}


@pytest.mark.parametrize("date", FORGED.values(), ids=FORGED)
async def test_one_forged_date_turns_no_clock_of_other_buckets_and_makes_no_second_job(
    tmp_path: Path, date: str
) -> None:
    """Each host has a clock of its own; that of the bucket itself is right again after a refusal at the most."""
    rng: Any = None
    async with site(tmp_path, budget(5)) as here, FlakyProxy(here.emulator.port, rng, FaultMix()) as proxy:
        values = here.settings(cloud=f"http://127.0.0.1:{proxy.port}")
        async with Gateway(values) as gateway, here.caller(gateway, "poor") as caller:
            first = await caller.create(request_id=A)
            await caller.create(bucket=OTHER_BUCKET)
            proxy.forge_date(date)
            # From a refusal a clock is learned before all.
            here.emulator.add_fault("error", "create", status=403, code="RequestTimeTooSkewed")
            refused = await caller.answer(request_id=B, output="previews/b-${Number}.jpg")
            assert not proxy.is_forging
            here.emulator.clear_requests()
            assert (await caller.create(bucket=OTHER_BUCKET, output="p-${Number}.jpg")).job_id
            assert [request.status for request in here.emulator.requests if request.operation == "create"] == [200]
            made = await caller.create(request_id=B, output="previews/b-${Number}.jpg")
            assert refused.job_id in {"", made.job_id}
            assert (await caller.create(request_id=A)).job_id == first.job_id
            assert await caller.pages() == (0, here.emulator.accepted_jobs) == (0, 4)


async def test_a_create_given_up_before_a_byte_was_sent_releases_its_pages_at_once(tmp_path: Path) -> None:
    """It waits behind a slow create, and its caller leaves."""
    limit = {"initial": 1, "lowest": 1, "highest": 1}
    async with (
        site(tmp_path, budget(3)) as here,
        Gateway(here.settings(concurrency=limit, ledger={})) as gateway,
        here.caller(gateway, "poor") as caller,
    ):
        await caller.create()
        here.emulator.add_fault("latency", "create", seconds=10.0)
        slow = asyncio.create_task(caller.answer(output="previews/slow-${Number}.jpg"))
        await until(lambda: here.sent() == 2)
        gone = asyncio.create_task(caller.answer(request_id=A))
        await until_reserved(caller, 3)
        gone.cancel()
        await until_reserved(caller, 2)
        assert not slow.done()
        assert (await slow).job_id
        assert here.sent() == 2


async def until_reserved(caller: Caller, pages: int) -> None:
    """Wait until so many of the caller's pages are reserved."""
    async with asyncio.timeout(10):
        while (await caller.pages())[1] != pages:  # noqa: ASYNC110 - the gateway does it in the background
            await asyncio.sleep(0.05)


async def test_a_create_that_cannot_connect_releases_its_pages_at_once(tmp_path: Path) -> None:
    """The whole budget is left for creates that can."""
    async with (
        site(tmp_path, budget(2)) as here,
        Gateway(here.settings()) as gateway,
        here.caller(gateway, "poor") as caller,
    ):
        await caller.create()
        await here.emulator.__aexit__(None, None, None)
        for request_id in ("", A):
            answer = await caller.answer(request_id=request_id, output="previews/q-${Number}.jpg")
            assert answer.reason == "UPSTREAM_UNREACHABLE"
            assert await caller.pages() == (0, 1)


async def test_a_create_that_never_fits_is_told_so(tmp_path: Path) -> None:
    """PAGE_BUDGET_TOO_SMALL, not the next period; and `count: asked` admits only creates that say how many pages."""
    callers = budget(5) | {"exact": {"budget": {"per_day": 5, "count": "asked"}}}
    async with (
        site(tmp_path, callers) as here,
        Gateway(here.settings()) as gateway,
        here.caller(gateway, "poor") as poor,
        here.caller(gateway, "exact") as exact,
    ):
        for caller in (poor, exact):
            too_many = await caller.answer(page_ranges="1-6")
            assert too_many.reason == "PAGE_BUDGET_TOO_SMALL"
            assert (await caller.answer(request_id=A, page_ranges="1-6")).reason == "PAGE_BUDGET_TOO_SMALL"
        assert (await exact.answer()).reason == "INVALID_REQUEST"
        assert here.sent() == 0
        await exact.create(page_ranges="1-5")
        assert await exact.pages() == (0, 5)
        assert (await exact.answer(page_ranges="1")).reason == "PAGE_BUDGET_EXHAUSTED"


BACKGROUND = {scripts.DUE, scripts.STATE, scripts.POSTPONE, scripts.LEASE, scripts.LEASES}
"""Scripts of rounds, which run beside the creates."""


class Monitor:
    """The commands of creates that a server was sent, by MONITOR."""

    def __init__(self, server: RedisServer) -> None:
        self._socket = socket.create_connection(("127.0.0.1", server.port), timeout=5)
        self._server = server
        self._socket.sendall(b"MONITOR\r\n")
        assert self._socket.recv(5) == b"+OK\r\n"

    def close(self) -> None:
        self._socket.close()

    def commands(self) -> int:
        """Number of commands since the last call."""
        mark = uuid.uuid4().hex.encode()
        self._server.command("ECHO", mark.decode())
        text = b""
        while mark not in text:
            text += self._socket.recv(65536)
        lines = [line for line in text.split(b"\r\n") if b' "EVAL" ' in line and b'"docpreview:2:{' in line]
        return sum(not any(_quoted(script) in line for script in BACKGROUND) for line in lines)


def _quoted(script: str) -> bytes:
    """A script as MONITOR shows it."""
    return script.encode().replace(b"\\", b"\\\\").replace(b"\n", b"\\n").replace(b'"', b'\\"')


async def test_a_create_costs_two_round_trips_of_the_store_and_its_repeat_one(tmp_path: Path) -> None:
    """With a budget and with deduplication too; they were four to eleven."""
    callers: dict[str, dict[str, Any]] = {
        "poor": {"budget": {"per_day": 1000, "estimate": 1}},
        "saving": {"dedupe_seconds": 3600},
        "both": {"budget": {"per_day": 1000, "estimate": 1}, "dedupe_seconds": 3600},
    }
    with running_redis(tmp_path) as redis:
        async with site(tmp_path, callers, hold=True) as here, Gateway(here.settings(**shared(redis))) as gateway:
            with closing(Monitor(redis)) as monitor:
                for name in ("one", *callers):
                    async with here.caller(gateway, name) as caller:
                        await caller.create(request_id=str(uuid.uuid4()), output=f"previews/{name}-0-${{Number}}.jpg")
                        monitor.commands()
                        request_id, output = str(uuid.uuid4()), f"previews/{name}-1-${{Number}}.jpg"
                        costs = []
                        for _ in range(2):
                            await caller.create(request_id=request_id, output=output)
                            costs.append(monitor.commands())
                        await caller.create(output=f"previews/{name}-2-${{Number}}.jpg")
                        costs.append(monitor.commands())
                        assert costs == [2, 1, 2], name
                        if "dedupe_seconds" in callers.get(name, {}):
                            await caller.create(output=output)
                            await caller.create(output=output, request_id=str(uuid.uuid4()))
                            assert monitor.commands() == 1 + 2, name
