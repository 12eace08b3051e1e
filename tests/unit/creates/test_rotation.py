"""A secret that is replaced: what was recorded with the one before is still found."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.creates.rebuild import Scans
from docpreview_gateway.model.errors import GatewayError
from tests.unit.creates.worlds import BUCKET, COUNTED, TIMING, World, name_of, request

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview_gateway.creates.records import Record
    from tests.fakes.recorded import Recorded

OLD, NEW = bytes(range(32)), bytes(range(1, 33))


class Rotation:
    """A process with the old secret, and one with a new one in its place."""

    def __init__(self) -> None:
        self.world = World()
        self.before = self.world.parts
        self.after = self.with_secrets(NEW, OLD)

    def with_secrets(self, *secrets: bytes) -> Recorded:
        return replace(self.world.process(), keys=CreateKeys("tests", secrets))

    def lose(self) -> None:
        """All records are lost, and that is accepted."""
        self.world.data.empty()
        self.world.data.generation = "accepted"

    async def take_in(self) -> Sequence[Record]:
        """Give jobs without a record one, as `reconcile --charge` does, by the new secret and the old one."""
        parts, now = self.after, self.world.cloud.now()
        scans = Scans(parts.history, parts.keys, parts.times, timing=TIMING, caller_names=lambda: [COUNTED.name])
        return (await scans.scan(BUCKET, self.world.store, now - 3600, now + 1)).orphans


@pytest.fixture
def rotation() -> Rotation:
    return Rotation()


async def test_an_id_of_before_gets_its_job(rotation: Rotation) -> None:
    asked = request()
    job = await rotation.world.create(asked, COUNTED, at=rotation.before)
    assert (await rotation.world.create(asked, COUNTED, at=rotation.after)).job_id == job.job_id
    assert rotation.world.cloud.posts == 1
    assert rotation.world.pages() == Pages(0, 40)


async def test_an_id_of_after_gets_its_job_where_the_new_secret_is_known_already(rotation: Rotation) -> None:
    """Secrets are first added everywhere, and then put first."""
    asked = request()
    job = await rotation.world.create(asked, at=rotation.after)
    ready = rotation.with_secrets(OLD, NEW)
    assert (await rotation.world.create(asked, at=ready)).job_id == job.job_id


async def test_an_id_of_before_with_another_request_is_refused(rotation: Rotation) -> None:
    asked = request()
    await rotation.world.create(asked, at=rotation.before)
    other = request(asked.request_id, input_object="b.pdf")
    assert name_of(await rotation.world.error(other, at=rotation.after)) == "REQUEST_ID_REUSED"


@pytest.mark.parametrize("echo", [True, False])
@pytest.mark.parametrize("template", ["out/p-${Page}.jpg", "out/${RequestToken}/p-${Page}.jpg"])
async def test_a_lost_reply_of_before_makes_no_second_job(
    rotation: Rotation,
    template: str,
    echo: bool,  # noqa: FBT001
) -> None:
    """Its marker, and the token in its output path, are those of the old secret."""
    world = rotation.world
    world.cloud.echo, world.cloud.lag, world.cloud.fates = echo, 20.0, ["lost"]
    asked = request()
    asked.output.object = template
    await world.error(asked, at=rotation.before, seconds=2)
    await asyncio.sleep(25)
    for _ in range(10):
        try:
            assert (await world.create(asked, at=rotation.after, seconds=5)).job_id == "d0000"
            break
        except GatewayError:
            await asyncio.sleep(TIMING.watch / 4)
    assert world.cloud.posts == 1


async def test_an_id_stays_with_its_job_at_every_replica_when_a_job_of_a_lost_record_is_taken_in(
    rotation: Rotation,
) -> None:
    """The loss was accepted, and the id has a second job under the new secret; then the first job gets its record."""
    world, asked = rotation.world, request()
    first = await world.create(asked, COUNTED, at=rotation.before)
    rotation.lose()
    second = await world.create(asked, COUNTED, at=rotation.after)
    assert [record.job_id for record in await rotation.take_in()] == [first.job_id]
    for secrets in ((NEW, OLD), (OLD, NEW)):
        told = await world.create(asked, COUNTED, at=rotation.with_secrets(*secrets))
        assert told.job_id == second.job_id
    assert world.cloud.posts == 2


async def test_an_id_whose_records_are_all_taken_in_has_one_job_at_every_replica(rotation: Rotation) -> None:
    """The later one, which was told last."""
    world, asked = rotation.world, request()
    await world.create(asked, at=rotation.before)
    rotation.lose()
    await asyncio.sleep(5)
    second = await world.create(asked, at=rotation.after)
    rotation.lose()
    assert len(await rotation.take_in()) == 2
    for secrets in ((NEW, OLD), (OLD, NEW)):
        assert (await world.create(asked, at=rotation.with_secrets(*secrets))).job_id == second.job_id


async def test_a_record_that_was_taken_in_goes_behind_that_of_a_create_whatever_their_times(rotation: Rotation) -> None:
    """A request that was on its way at the loss may arrive after its id has got another job."""
    world, asked = rotation.world, request()
    world.cloud.fates = [30.0]
    await world.error(asked, at=rotation.before, seconds=2)
    rotation.lose()
    second = await world.create(asked, at=rotation.after)
    await asyncio.sleep(60)
    (late,) = await rotation.take_in()
    assert late.created_at > second.create_time.seconds
    for secrets in ((NEW, OLD), (OLD, NEW)):
        assert (await world.create(asked, at=rotation.with_secrets(*secrets))).job_id == second.job_id


async def test_an_id_of_before_that_was_sent_again_after_gets_its_job_when_its_record_is_taken_in(
    rotation: Rotation,
) -> None:
    """The marker's check is by the new secret, its key and body are by the old one."""
    world, asked = rotation.world, request()
    world.cloud.fates = ["never"]
    await world.error(asked, at=rotation.before, seconds=2)
    await asyncio.sleep(TIMING.watch)
    told = None
    while told is None:
        with suppress(GatewayError):
            told = await world.create(asked, at=rotation.after, seconds=5)
        await asyncio.sleep(TIMING.watch / 4)
    rotation.lose()
    await rotation.take_in()
    assert (await world.create(asked, at=rotation.after)).job_id == told.job_id
    other = request(asked.request_id, input_object="b.pdf")
    assert name_of(await world.error(other, at=rotation.after)) == "REQUEST_ID_REUSED"


async def test_with_one_secret_nothing_more_is_asked_of_the_store(rotation: Rotation) -> None:
    await rotation.world.create(request(), at=rotation.before)
    assert rotation.world.store.calls == {"begin": 1, "change": 1}
