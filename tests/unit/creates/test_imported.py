"""Creates that version 0.x has sent: found by their old ids and markers, and never sent twice."""

from __future__ import annotations

import asyncio
import hmac
from hashlib import sha256
from typing import Any

import pytest

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.imported import (
    OldCreate,
    OldIds,
    OldReservation,
    OldStore,
    OldStoreError,
    Stage,
    old_create,
    taken_over,
)
from docpreview_gateway.creates.pages import Pages
from docpreview_gateway.creates.records import State
from tests.fakes.recorded import KEYS
from tests.unit.creates.worlds import BUCKET, COUNTED, NOON, TIMING, World, name_of, request

SECRET = bytes(range(32))
MARKER = "dg1-" + "abcdefghijklmnopqrstuvwxyz"
TODAY = "2026-11-15"
SENT = NOON - 5


def old_key(asked: CreatePreviewJobRequest, caller: str = COUNTED.name) -> str:
    return sha256(f"{caller}\n{asked.bucket}\n{asked.request_id}".encode()).hexdigest()


def old_of(asked: CreatePreviewJobRequest, stage: Stage = Stage.UNKNOWN, **changes: Any) -> OldCreate:
    body = CreatePreviewJobRequest()
    body.CopyFrom(asked)
    body.ClearField("request_id")
    stored = body.SerializeToString(deterministic=True)
    values: dict[str, Any] = {
        "key": old_key(asked),
        "fingerprint": hmac.digest(SECRET, stored, "sha256"),
        "marker": MARKER,
        "request": stored,
        "stage": stage,
        "expires_at": SENT + 86400,
        "sent_at": SENT,
        "fence": SENT + 105,
        "job": b"",
    }
    return OldCreate(**(values | changes))


def world_of(*creates: OldCreate, reserved: int = 0) -> World:
    """A world after the upgrade, in which these creates have so many pages each."""
    reservations = [
        OldReservation(each.key, COUNTED.name, reserved, TODAY, BUCKET.name, SENT, each.key, "", open=True)
        for each in creates
        if reserved
    ]
    found = taken_over(OldStore(list(creates), reservations, []), KEYS, TIMING)
    ids = OldIds()
    ids.learn(SECRET, found.until)
    world = World(old=ids)
    for record, look_at in found.records:
        world.data.put(record, look_at)
    return world


async def test_an_unknown_create_is_not_sent_again_before_its_fence() -> None:
    asked = request()
    world = world_of(old_of(asked))
    error = await world.error(asked, COUNTED)
    assert name_of(error) == "CREATE_OUTCOME_UNKNOWN"
    assert error.retry_after
    assert error.retry_after > 100
    assert world.cloud.posts == 0


async def test_its_job_is_found_by_the_old_marker_and_charged() -> None:
    asked = request()
    world = world_of(old_of(asked), reserved=7)
    made = world.cloud.add(PreviewJob(job_id="old", user_data=f"of the caller {MARKER}"))
    assert (await world.create(asked, COUNTED)).job_id == made.job_id
    assert world.pages() == Pages(0, 7)
    world.cloud.end("old", made=3)
    await world.settle(10)
    assert world.pages() == Pages(3, 0)
    assert (await world.create(asked, COUNTED)).job_id == "old"
    assert world.cloud.posts == 0


async def test_its_job_is_found_by_the_old_marker_in_its_output_path() -> None:
    """Where the cloud does not echo user data."""
    asked = request(output=ObjectLocation(object="out/${RequestToken}/${Page}.jpg"))
    world = world_of(old_of(asked))
    output = ObjectLocation(bucket=BUCKET.name, object=f"out/{MARKER}/${{Page}}.jpg")
    world.cloud.add(PreviewJob(job_id="old", output=output))
    assert (await world.create(asked, COUNTED)).job_id == "old"


async def test_a_job_with_another_old_marker_is_not_taken() -> None:
    asked = request()
    world = world_of(old_of(asked))
    world.cloud.add(PreviewJob(job_id="other", user_data="dg1-" + "b" * 26))
    assert name_of(await world.error(asked, COUNTED)) == "CREATE_OUTCOME_UNKNOWN"


async def test_a_create_that_is_proven_absent_is_sent_under_a_record_of_its_own() -> None:
    """By the caller that repeats it, without the loop. Its reserved pages are those of the new one then."""
    asked = request()
    world = world_of(old_of(asked), reserved=7)
    # The cloud echoes, as this one shows.
    await world.create(request(""))
    assert name_of(await world.error(asked, COUNTED)) == "CREATE_OUTCOME_UNKNOWN"
    await asyncio.sleep(TIMING.watch + 60)
    job = await world.create(asked, COUNTED)
    assert (await world.create(asked, COUNTED)).job_id == job.job_id
    assert world.cloud.posts == 2
    assert not any(record.is_imported for record in world.records)
    assert world.pages() == Pages(0, COUNTED.budget.estimate if COUNTED.budget else 0)


async def test_an_absent_create_that_nobody_repeats_gives_its_pages_back() -> None:
    world = world_of(old_of(request()), reserved=7)
    await world.create(request())
    for _ in range(20):
        await world.settle(30)
    assert not any(record.is_imported for record in world.records)
    assert world.pages() == Pages()


async def test_another_body_of_an_old_id_is_refused_while_it_is_open_too() -> None:
    asked = request()
    world = world_of(old_of(asked))
    assert name_of(await world.error(request(asked.request_id, input_object="b.pdf"), COUNTED)) == "REQUEST_ID_REUSED"


async def test_old_ids_cost_a_look_only_while_they_may_exist() -> None:
    asked = request()
    world = world_of(old_of(asked, Stage.ACCEPTED, job=PreviewJob(job_id="old").SerializeToString()))
    assert (await world.create(asked, COUNTED)).job_id == "old"
    await world.create(request())
    assert world.store.calls["find"] == 2
    world.cloud.begins_at += 10 * 86400
    await world.settle(1)
    await world.create(request(), at=world.process(world.store))
    assert world.store.calls["find"] == 2


async def test_an_expired_old_id_is_forgotten_after_two_looks() -> None:
    asked = request()
    world = world_of(old_of(asked, Stage.ACCEPTED, job=PreviewJob(job_id="old").SerializeToString()))
    await world.create(request(""))
    await world.settle(86400)
    assert any(record.is_imported for record in world.records)
    for _ in range(4):
        await world.settle(3700)
    assert not any(record.is_imported for record in world.records)


async def test_ids_are_looked_up_as_long_as_it_is_not_known_whether_there_are_old_ones() -> None:
    """When the server was away at the start."""
    asked, ids = request(), OldIds()
    world = World(old=ids)
    await world.create(asked)
    assert world.store.calls["find"] == 1
    ids.learn(b"", 0.0)
    await world.create(asked)
    assert world.store.calls["find"] == 1


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"request": b"\xff"}, "damaged"),
        ({"request": b""}, "no request"),
        ({"fingerprint": b""}, "no request"),
        ({"stage": "elsewhere"}, "ValueError"),
        ({"sent_at": 0.0}, "does not say when"),
        ({"fence": None}, "TypeError"),
        ({"request": 5}, "TypeError"),
        ({"stage": "accepted", "job": b""}, "has no job"),
    ],
)
def test_an_old_create_that_cannot_be_read_is_named(changes: dict[str, Any], why: str) -> None:
    whole = old_of(request())
    values = {name: getattr(whole, name) for name in OldCreate.__dataclass_fields__}
    assert old_create(values, "here", "do this") == whole
    with pytest.raises(OldStoreError, match=f"^here cannot be taken over: .*{why}.* do this$"):
        old_create(values | changes, "here", "do this")


def test_pages_that_were_reserved_twice_over_are_counted_once() -> None:
    """A create that ended has a charged reservation: its record counts nothing."""
    asked = request()
    create = old_of(asked, Stage.ACCEPTED, job=PreviewJob(job_id="old").SerializeToString())
    charged = OldReservation(create.key, "shop", 7, TODAY, BUCKET.name, SENT, create.key, "old", open=False)
    ((record, look_at),) = taken_over(OldStore([create], [charged], []), KEYS, TIMING).records
    assert (record.state, record.counts, look_at) == (State.CHARGED, (0, 0), record.expires_at)
