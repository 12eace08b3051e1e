"""Creates with a `request_id` are made again until their outcome is known."""

import asyncio
from datetime import timedelta
from uuid import UUID

import grpc
import pytest

from docpreview_client import BudgetExhausted, DocPreviewClient, OutcomeUnknown, Throttled, Unavailable

from .fake_gateway import Failure, FakeGateway
from .samples import BUCKET, failure, job

REQUEST_ID = "7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10"
UNAVAILABLE = failure(grpc.StatusCode.UNAVAILABLE, "SHUTTING_DOWN")
BROKEN = Failure(grpc.StatusCode.UNAVAILABLE, "Socket closed")


async def test_a_create_with_request_id_is_repeated_until_the_gateway_is_back(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """Also over broken connections; the request stays the same."""
    gateway.will("CreatePreviewJob", UNAVAILABLE, BROKEN, job())
    assert await client.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID) == job()
    assert [request.request_id for request in gateway.asked("CreatePreviewJob")] == [REQUEST_ID] * 3


async def test_a_create_that_is_in_flight_when_the_deadline_passes_has_an_unknown_outcome_and_tells_its_request_id(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """A caller that took it for refused, and created again without the id, would be charged twice."""
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.UNAVAILABLE, "CREATE_IN_PROGRESS"))
    with pytest.raises(OutcomeUnknown) as caught:
        await client.create(BUCKET, "a", output_object="b/${Page}", timeout=0.5)
    assert caught.value.create_request_id == gateway.asked("CreatePreviewJob")[0].request_id != ""


async def test_a_create_gets_a_request_id_of_its_own_and_is_repeated_with_it(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("CreatePreviewJob", BROKEN, job(), job())
    await client.create(BUCKET, "a", output_object="b/${Page}")
    await client.create(BUCKET, "a", output_object="b/${Page}")
    first, again, second = (UUID(request.request_id) for request in gateway.asked("CreatePreviewJob"))
    assert first == again != second


async def test_a_create_is_repeated_until_its_deadline(gateway: FakeGateway, client: DocPreviewClient) -> None:
    gateway.will("CreatePreviewJob", *[UNAVAILABLE] * 7, job())
    assert await client.create(BUCKET, "a", output_object="b/${Page}", timeout=60) == job()
    gateway.will("CreatePreviewJob", UNAVAILABLE)
    with pytest.raises(Unavailable):
        await client.create(BUCKET, "a", output_object="b/${Page}", timeout=0.5)


async def test_a_client_without_request_ids_makes_creates_once_unless_they_have_one(
    gateway: FakeGateway, once: DocPreviewClient
) -> None:
    gateway.will("CreatePreviewJob", UNAVAILABLE, UNAVAILABLE, job())
    with pytest.raises(Unavailable):
        await once.create(BUCKET, "a", output_object="b/${Page}")
    assert await once.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID) == job()
    assert [request.request_id for request in gateway.asked("CreatePreviewJob")] == ["", REQUEST_ID, REQUEST_ID]


async def test_a_later_refusal_does_not_hide_that_an_attempt_may_have_made_the_job(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """A later attempt that was not accepted does not hide that an earlier one may have been."""
    gateway.will("CreatePreviewJob", BROKEN, UNAVAILABLE)
    with pytest.raises(OutcomeUnknown):
        await client.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID, timeout=1)


async def test_a_create_fails_at_once_when_its_retry_delay_outlasts_the_deadline(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The gateway is not asked before the time it named."""
    later = failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_UNKNOWN", retry_delay=timedelta(minutes=2))
    gateway.will("CreatePreviewJob", later)
    with pytest.raises(OutcomeUnknown) as caught:
        await client.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID)
    assert caught.value.retry_delay == timedelta(minutes=2)
    assert caught.value.create_request_id == REQUEST_ID
    assert len(gateway.calls) == 1


async def test_a_throttled_create_is_repeated_when_the_gateway_says(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """Not before, and not at all when that is after the deadline."""
    delay = timedelta(milliseconds=600)
    throttled = failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_THROTTLED", retry_delay=delay)
    gateway.will("CreatePreviewJob", throttled, job())
    loop = asyncio.get_running_loop()
    begin = loop.time()
    assert await client.create(BUCKET, "a", output_object="b/${Page}") == job()
    assert loop.time() - begin >= delay.total_seconds()
    gateway.will("CreatePreviewJob", throttled)
    with pytest.raises(Throttled):
        await client.create(BUCKET, "a", output_object="b/${Page}", timeout=0.5)
    assert len(gateway.calls) == 3


@pytest.mark.parametrize(
    ("reason", "retry_delay"), [("PAGE_BUDGET_EXHAUSTED", timedelta(seconds=0.01)), ("PAGE_BUDGET_TOO_SMALL", None)]
)
async def test_a_create_beyond_the_budget_is_not_repeated(
    gateway: FakeGateway, client: DocPreviewClient, reason: str, retry_delay: timedelta | None
) -> None:
    """Not even when the next period begins before the deadline."""
    refusal = failure(grpc.StatusCode.RESOURCE_EXHAUSTED, reason, retry_delay=retry_delay)
    gateway.will("CreatePreviewJob", refusal)
    with pytest.raises(BudgetExhausted) as caught:
        await client.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID)
    assert (caught.value.reason, caught.value.retry_delay) == (reason, retry_delay)
    assert len(gateway.calls) == 1


async def test_a_create_whose_outcome_is_ambiguous_is_not_repeated(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """Repeating does not help. The reason of an earlier attempt does not hide this one."""
    gateway.will("CreatePreviewJob", BROKEN, failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_AMBIGUOUS"))
    with pytest.raises(OutcomeUnknown) as caught:
        await client.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID)
    assert caught.value.reason == "CREATE_OUTCOME_AMBIGUOUS"
    assert len(gateway.calls) == 2
