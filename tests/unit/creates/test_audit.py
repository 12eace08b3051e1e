"""Every create is audited once, whatever its outcome."""

from __future__ import annotations

import asyncio

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.creates.audit import audited
from docpreview_gateway.model.call import Call
from docpreview_gateway.model.errors import GatewayError, NotPermitted
from tests.fakes.telemetry import FakeAuditLog

REQUEST = CreatePreviewJobRequest(bucket="docs-1250000000")
CALL = Call("r1", 0)


async def test_a_created_job_is_audited_as_ok_with_its_id() -> None:
    """The record has the outcome OK and the job's id."""

    async def create(_request: CreatePreviewJobRequest, _call: Call) -> PreviewJob:
        return PreviewJob(job_id="d1")

    job = await audited(create, log := FakeAuditLog())(REQUEST, CALL)
    assert (job.job_id, log.entries) == ("d1", [("OK", "d1")])


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (GatewayError(r.ERROR_REASON_BUCKET_NOT_CONFIGURED, "no"), "BUCKET_NOT_CONFIGURED"),
        (KeyError("bug"), "INTERNAL"),
        (asyncio.CancelledError(), "CANCELLED"),
    ],
)
async def test_a_failed_create_is_audited_with_its_reason_and_raised_again(error: BaseException, outcome: str) -> None:
    """The record has the error's reason, INTERNAL or CANCELLED, and the same error is raised."""

    async def create(_request: CreatePreviewJobRequest, _call: Call) -> PreviewJob:
        raise error

    with pytest.raises(type(error)) as caught:
        await audited(create, log := FakeAuditLog())(REQUEST, CALL)
    assert caught.value is error
    assert log.entries == [(outcome, "")]


async def test_a_create_that_the_policy_refuses_is_audited_with_the_rule() -> None:
    """For the record, and for the line of its call."""

    async def create(_request: CreatePreviewJobRequest, _call: Call) -> PreviewJob:
        raise NotPermitted("callers.desk.buckets", "no")

    call = Call("r1", 0)
    with pytest.raises(NotPermitted):
        await audited(create, log := FakeAuditLog())(REQUEST, call)
    assert log.entries == [("NOT_PERMITTED", "")]
    assert call.response.rule == "callers.desk.buckets"
