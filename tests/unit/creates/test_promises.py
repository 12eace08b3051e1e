"""Creates with a webhook: what is promised is kept, whatever fails, and what cannot be kept is not sent."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.model.callers import Caller
from docpreview_gateway.model.errors import InvalidRequest
from docpreview_gateway.model.policy import ANY_METHOD, BucketRights, Rights
from tests.unit.creates.worlds import BUCKET, World, name_of, request

if TYPE_CHECKING:
    from docpreview.v1.preview_job_pb2 import PreviewJob

RIGHTS = Rights(
    "callers.one",
    frozenset({ANY_METHOD}),
    {BUCKET.name: BucketRights("callers.one.buckets", ("",), {BUCKET.name: ("",)})},
    webhooks=frozenset({"orders"}),
)
CALLER = Caller("one", rights=RIGHTS)


@dataclass
class Promises:
    """The port `Webhooks`: what was promised. The next `failures` calls fail."""

    kept: list[tuple[str, str, str]] = field(default_factory=list)
    failures: int = 0

    async def promise(self, caller: str, target: str, job: PreviewJob) -> None:
        if self.failures:
            self.failures -= 1
            raise StoreError("the queue is away")
        self.kept.append((caller, target, job.job_id))


@pytest.fixture
def promises() -> Promises:
    return Promises()


@pytest.fixture
def world(promises: Promises) -> World:
    return World(webhooks=promises)


async def test_a_create_with_a_webhook_is_recorded_and_promised_without_an_id_too(
    world: World, promises: Promises
) -> None:
    job = await world.create(request("", webhook="orders"), CALLER)
    assert promises.kept == [("one", "orders", job.job_id)]
    assert len(world.records) == 1


async def test_one_without_a_webhook_promises_nothing(world: World, promises: Promises) -> None:
    await world.create(request(), CALLER)
    assert promises.kept == []


async def test_a_repeat_promises_the_same_job_again(world: World, promises: Promises) -> None:
    """The queue knows it by its id; a queue that was lost gets it back."""
    asked = request(webhook="orders")
    job = await world.create(asked, CALLER)
    await world.create(asked, CALLER, at=world.process())
    assert set(promises.kept) == {("one", "orders", job.job_id)}
    assert world.cloud.posts == 1


async def test_a_repeat_with_another_webhook_is_another_request(world: World) -> None:
    asked = request(webhook="orders")
    await world.create(asked, CALLER)
    without = request(asked.request_id)
    assert name_of(await world.error(without, CALLER)) == "REQUEST_ID_REUSED"


async def test_while_the_store_is_away_nothing_is_sent(world: World, promises: Promises) -> None:
    world.store.fail_before = 5
    assert name_of(await world.error(request("", webhook="orders"), CALLER)) == "LEDGER_UNAVAILABLE"
    assert world.cloud.posts == 0
    assert promises.kept == []


async def test_a_promise_that_fails_is_kept_by_the_settlement(world: World, promises: Promises) -> None:
    """The caller has its job: the record is open until the promise is kept."""
    promises.failures = 1
    job = await world.create(request("", webhook="orders"), CALLER)
    assert promises.kept == []
    await world.settle(3600.0)
    assert promises.kept == [("one", "orders", job.job_id)]
    assert world.cloud.posts == 1


async def test_a_create_whose_reply_is_lost_is_promised_when_its_job_is_found(world: World, promises: Promises) -> None:
    world.cloud.fates.append("lost")
    asked = request(webhook="orders")
    job = await world.create(asked, CALLER)
    assert promises.kept == [("one", "orders", job.job_id)]


async def test_a_create_that_dedupes_is_promised_the_job_that_it_gets(world: World, promises: Promises) -> None:
    dedupes = replace(CALLER, dedupe_seconds=3600)
    first = await world.create(request(), dedupes)
    second = await world.create(request(webhook="orders"), dedupes)
    assert second.job_id == first.job_id
    assert promises.kept == [("one", "orders", first.job_id)]


async def test_a_request_too_large_to_be_kept_has_no_webhook(world: World) -> None:
    """Its record could not say that there is one."""
    large = request(webhook="orders")
    large.options.image_params = "\U0001f4c4" * 2048
    with pytest.raises(InvalidRequest) as refused:
        await world.create(large, CALLER)
    assert [violation.field for violation in refused.value.violations] == ["webhook"]
