"""A secret that is replaced: what was recorded with the one before is still found."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.model.errors import GatewayError
from tests.unit.creates.worlds import COUNTED, TIMING, World, name_of, request

if TYPE_CHECKING:
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


async def test_with_one_secret_nothing_more_is_asked_of_the_store(rotation: Rotation) -> None:
    await rotation.world.create(request(), at=rotation.before)
    assert rotation.world.store.calls == {"begin": 1, "change": 1}
