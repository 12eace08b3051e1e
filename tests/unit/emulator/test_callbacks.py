"""Callbacks of ended jobs, what goes wrong with them on demand, and what their sender does without an answer."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from docpreview_emulator import Emulator, Settings

from .cloud_client import BUCKET, REGION, Cloud
from .pdf_files import pdf

TOKEN = "abcdefghijklmnopqrstuv"


@dataclass
class Receiver:
    """Takes callbacks: their addresses and jobs, in the order in which they came."""

    address: str = ""
    paths: list[str] = field(default_factory=list)
    jobs: list[tuple[str, str]] = field(default_factory=list)
    status: int = 200
    answers: asyncio.Event = field(default_factory=asyncio.Event)

    async def take(self, request: web.BaseRequest) -> web.Response:
        [job] = json.loads(await request.read())["JobsDetail"]
        self.paths.append(request.path)
        self.jobs.append((job["JobId"], job["State"]))
        await self.answers.wait()
        return web.Response(status=self.status)

    async def came(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.jobs) < count:  # noqa: ASYNC110 - no event tells it
                await asyncio.sleep(0.01)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    found = Receiver()
    found.answers.set()
    runner = web.ServerRunner(web.Server(found.take))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    found.address = f"http://127.0.0.1:{runner.addresses[0][1]}/cb/{TOKEN}"
    yield found
    found.answers.set()
    await runner.cleanup()


@pytest.fixture
async def emulator(tmp_path: Path) -> AsyncIterator[Emulator]:
    settings = Settings(submit_delay=0.0, callback_seconds=0.3)
    async with Emulator(tmp_path / "data", settings=settings) as running:
        running.put_object(BUCKET, REGION, "seven.pdf", pdf(1))
        yield running


async def job_of(cloud: Cloud, address: str) -> str:
    """The id of a new job whose end is to be told at the address."""
    return await cloud.job_id("seven.pdf", CallBack=address, CallBackFormat="JSON")


async def sent(emulator: Emulator, count: int) -> None:
    async with asyncio.timeout(10):
        while len(emulator.callbacks) < count:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.01)


async def test_a_callback_tells_of_the_end_once(emulator: Emulator, cloud: Cloud, receiver: Receiver) -> None:
    job_id = await job_of(cloud, receiver.address)
    await sent(emulator, 1)
    assert (receiver.jobs, receiver.paths) == ([(job_id, "Success")], [f"/cb/{TOKEN}"])
    async with aiohttp.ClientSession() as session, session.get(f"{emulator.url}/_emulator/callbacks") as answer:
        assert await answer.json() == [{"job_id": job_id, "status": 200, "problem": ""}]


@pytest.mark.parametrize("delay", [0.0, 0.1])
async def test_an_end_that_is_set_while_a_job_waits_or_runs_is_told_once(
    tmp_path: Path, receiver: Receiver, delay: float
) -> None:
    async with Emulator(tmp_path, settings=Settings(submit_delay=delay)) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "seven.pdf", pdf(1))
        emulator.hold_jobs()
        job_id = await job_of(cloud, receiver.address)
        emulator.set_job_state(job_id, "Success")
        await sent(emulator, 1)
        await asyncio.sleep(2 * delay)
        await sent(emulator, 1)
    assert receiver.jobs == [(job_id, "Success")]


async def test_a_lost_callback_never_comes_and_the_next_one_does(
    emulator: Emulator, cloud: Cloud, receiver: Receiver
) -> None:
    emulator.add_fault("drop_before", "callback")
    await emulator.wait_for_job(await job_of(cloud, receiver.address))
    job_id = await job_of(cloud, receiver.address)
    await sent(emulator, 1)
    assert receiver.jobs == [(job_id, "Success")]


async def test_a_late_callback_comes_so_much_later(emulator: Emulator, cloud: Cloud, receiver: Receiver) -> None:
    emulator.add_fault("latency", "callback", seconds=0.3)
    await emulator.wait_for_job(await job_of(cloud, receiver.address))
    begun = asyncio.get_running_loop().time()
    await receiver.came(1)
    assert asyncio.get_running_loop().time() - begun > 0.2


async def test_a_doubled_callback_comes_twice(emulator: Emulator, cloud: Cloud, receiver: Receiver) -> None:
    emulator.add_fault("twice", "callback")
    job_id = await job_of(cloud, receiver.address)
    await sent(emulator, 2)
    assert receiver.jobs == [(job_id, "Success")] * 2


async def test_an_early_callback_comes_while_reads_still_show_the_job_as_running(
    emulator: Emulator, cloud: Cloud, receiver: Receiver
) -> None:
    emulator.add_fault("early", "callback", seconds=0.4)
    job_id = await job_of(cloud, receiver.address)
    await receiver.came(1)
    assert receiver.jobs == [(job_id, "Success")]
    states = [(await cloud.get(job_id)).text("JobsDetail/State")]
    async with asyncio.timeout(5):
        while states[-1] != "Success":
            states.append((await cloud.get(job_id)).text("JobsDetail/State"))
            await asyncio.sleep(0.05)
    assert states[0] == "Running"


async def test_callbacks_in_reverse_order_come_once_the_last_job_has_ended(
    emulator: Emulator, cloud: Cloud, receiver: Receiver
) -> None:
    emulator.add_fault("reverse", "callback", times=3)
    jobs = []
    for _ in range(3):
        assert receiver.jobs == []
        jobs.append(await job_of(cloud, receiver.address))
        await emulator.wait_for_job(jobs[-1])
    await sent(emulator, 3)
    assert [job_id for job_id, _ in receiver.jobs] == jobs[::-1]


async def test_forged_callbacks_have_another_state_another_job_or_another_token(
    emulator: Emulator, cloud: Cloud, receiver: Receiver
) -> None:
    jobs = []
    for kind in ("other_job", "other_state", "other_job", "wrong_token"):
        emulator.add_fault(kind, "callback")
        jobs.append(await job_of(cloud, receiver.address))
        await sent(emulator, len(jobs))
    made_up, state, other, token = receiver.jobs
    assert made_up[0] not in jobs
    assert state == (jobs[1], "Failed")
    assert other[0] in {jobs[0], jobs[1]}
    assert token == (jobs[3], "Success")
    assert receiver.paths == [f"/cb/{TOKEN}"] * 3 + [f"/cb/{'A' * len(TOKEN)}"]


async def test_a_receiver_that_answers_too_late_or_badly_is_not_told_again(
    emulator: Emulator, cloud: Cloud, receiver: Receiver
) -> None:
    """The vendor documents no retries."""
    receiver.answers.clear()
    first = await job_of(cloud, receiver.address)
    await sent(emulator, 1)
    receiver.answers.set()
    receiver.status = 503
    second = await job_of(cloud, receiver.address)
    await sent(emulator, 2)
    receiver.status = 200
    third = await job_of(cloud, receiver.address)
    await sent(emulator, 3)
    assert [job_id for job_id, _ in receiver.jobs] == [first, second, third]
    assert [(each.status, each.problem) for each in emulator.callbacks] == [
        (None, "no answer within 0.3 s"),
        (503, ""),
        (200, ""),
    ]


async def test_a_receiver_that_is_away_is_a_line_of_the_log_that_says_why_without_its_path(
    emulator: Emulator, cloud: Cloud, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        place = f"127.0.0.1:{probe.getsockname()[1]}"
        await job_of(cloud, f"http://{place}/cb/{TOKEN}")
        await sent(emulator, 1)
    assert emulator.callbacks[0].problem == f"no connection to {place}: Connection refused"
    assert emulator.callbacks[0].problem in caplog.text
    assert TOKEN not in caplog.text
