"""Creates with a `request_id` are made again until their outcome is known."""

from datetime import timedelta

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


async def test_a_create_with_request_id_fails_after_five_attempts(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("CreatePreviewJob", UNAVAILABLE)
    with pytest.raises(Unavailable):
        await client.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID)
    assert len(gateway.calls) == 5


async def test_a_later_refusal_does_not_hide_that_an_attempt_may_have_made_the_job(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """A later attempt that was not accepted does not hide that an earlier one may have been."""
    gateway.will("CreatePreviewJob", BROKEN, UNAVAILABLE)
    with pytest.raises(OutcomeUnknown):
        await client.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID)


async def test_a_create_fails_at_once_when_its_retry_delay_outlasts_the_deadline(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """The gateway is not asked before the time it named."""
    later = failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_UNKNOWN", retry_delay=timedelta(minutes=2))
    gateway.will("CreatePreviewJob", later)
    with pytest.raises(OutcomeUnknown) as caught:
        await client.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID)
    assert caught.value.retry_delay == timedelta(minutes=2)
    assert len(gateway.calls) == 1


async def test_a_throttled_create_is_not_repeated(gateway: FakeGateway, client: DocPreviewClient) -> None:
    """Repeating would make it worse."""
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_THROTTLED"))
    with pytest.raises(Throttled):
        await client.create(BUCKET, "a", output_object="b/${Page}", request_id=REQUEST_ID)
    assert len(gateway.calls) == 1


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
