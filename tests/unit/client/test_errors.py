"""Errors arrive as typed exceptions with everything that the gateway said."""

from datetime import timedelta

import grpc
import pytest
from google.protobuf.descriptor import EnumValueDescriptor
from google.rpc import error_details_pb2

from docpreview.v1.error_reason_pb2 import RETRY_LATER, RETRY_NEVER, RETRY_NOW, ErrorReason, retry
from docpreview_client import (
    BudgetExhausted,
    ClientOptions,
    DocPreviewClient,
    DocPreviewError,
    ErrorFacts,
    FailedPrecondition,
    InternalError,
    InvalidRequest,
    NotFound,
    OutcomeUnknown,
    PermissionDenied,
    Throttled,
    TransientError,
    Unauthenticated,
    Unavailable,
)

from .fake_gateway import Failure, FakeGateway, Silence
from .samples import BUCKET, JOB_ID, failure, invalid, over_quota


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        (grpc.StatusCode.NOT_FOUND, "JOB_NOT_FOUND", NotFound),
        (grpc.StatusCode.PERMISSION_DENIED, "BUCKET_NOT_CONFIGURED", PermissionDenied),
        (grpc.StatusCode.UNAUTHENTICATED, "", Unauthenticated),
        (grpc.StatusCode.FAILED_PRECONDITION, "CI_ROLE_MISSING", FailedPrecondition),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "UPSTREAM_QUOTA", Throttled),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "RATE_LIMITED", Throttled),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "PAGE_BUDGET_EXHAUSTED", BudgetExhausted),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "PAGE_BUDGET_TOO_SMALL", BudgetExhausted),
        (grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_AMBIGUOUS", OutcomeUnknown),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "REPLY_TOO_LARGE", InvalidRequest),
        (grpc.StatusCode.ALREADY_EXISTS, "REQUEST_ID_REUSED", InvalidRequest),
        (grpc.StatusCode.INTERNAL, "UPSTREAM_CREDENTIALS", InternalError),
        (grpc.StatusCode.UNIMPLEMENTED, "UPSTREAM_NOT_IMPLEMENTED", InternalError),
    ],
)
async def test_an_error_has_the_class_of_its_reason_and_carries_the_request_id(
    gateway: FakeGateway,
    client: DocPreviewClient,
    code: grpc.StatusCode,
    reason: str,
    kind: type[DocPreviewError],
) -> None:
    """The class says what to do; code, reason and message are attributes, too."""
    gateway.will("GetPreviewJob", failure(code, reason))
    with pytest.raises(DocPreviewError) as caught:
        await client.get(BUCKET, JOB_ID)
    error = caught.value
    assert type(error) is kind
    assert (error.code, error.reason, error.message, error.request_id) == (code, reason, "scripted", "req-7")


async def test_an_invalid_request_names_every_bad_field_in_attributes_and_text(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("CreatePreviewJob", invalid(bucket="is required", quality="must be 1 to 100"))
    with pytest.raises(InvalidRequest) as caught:
        await client.create("", "a.pptx", output_object="b/${Number}.jpg")
    assert caught.value.field_violations == (("bucket", "is required"), ("quality", "must be 1 to 100"))
    assert str(caught.value) == (
        "INVALID_REQUEST: 2 fields are invalid; bucket: is required; quality: must be 1 to 100"
    )


async def test_an_error_without_details_takes_its_request_id_from_the_metadata(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("GetPreviewJob", Failure(grpc.StatusCode.NOT_FOUND, metadata=(("x-request-id", "req-9"),)))
    with pytest.raises(NotFound) as caught:
        await client.get(BUCKET, JOB_ID)
    assert caught.value.request_id == "req-9"


async def test_a_reason_in_a_foreign_domain_is_not_taken_for_ours(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    """It may be a proxy's."""
    foreign = error_details_pb2.ErrorInfo(domain="proxy.example", reason="JOB_NOT_FOUND")
    gateway.will("GetPreviewJob", Failure(grpc.StatusCode.NOT_FOUND, details=(foreign,)))
    with pytest.raises(NotFound) as caught:
        await client.get(BUCKET, JOB_ID)
    assert caught.value.reason == ""


async def test_unreadable_details_do_not_hide_the_error(gateway: FakeGateway, client: DocPreviewClient) -> None:
    garbage = (("grpc-status-details-bin", b"\xff\xff"),)
    gateway.will("GetPreviewJob", Failure(grpc.StatusCode.NOT_FOUND, metadata=garbage))  # type: ignore[arg-type]
    with pytest.raises(NotFound, match="scripted"):
        await client.get(BUCKET, JOB_ID)


@pytest.mark.parametrize("value", ErrorReason.DESCRIPTOR.values[1:], ids=lambda value: str(value.name))
def test_every_reason_says_whether_to_repeat_the_call_as_the_contract_does(value: EnumValueDescriptor) -> None:
    said = {RETRY_NOW: "now", RETRY_LATER: "later", RETRY_NEVER: "never"}[value.GetOptions().Extensions[retry]]
    reason = value.name.removeprefix("ERROR_REASON_")
    error = DocPreviewError("", code=grpc.StatusCode.UNKNOWN, facts=ErrorFacts(reason=reason))
    assert error.retry == said


@pytest.mark.parametrize("code", list(grpc.StatusCode))
def test_without_a_reason_the_code_says_whether_to_repeat_the_call(code: grpc.StatusCode) -> None:
    now = code in {grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED}
    assert DocPreviewError("", code=code).retry == ("now" if now else "never")
    newer = DocPreviewError("", code=code, facts=ErrorFacts(reason="SOMETHING_NEW"))
    assert newer.retry == "never"


async def test_an_unavailable_create_without_request_id_is_not_repeated(
    gateway: FakeGateway, once: DocPreviewClient
) -> None:
    """Each is billed. Callers may repeat it, as the gateway sent nothing."""
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.UNAVAILABLE, "UPSTREAM_UNREACHABLE"))
    with pytest.raises(Unavailable):
        await once.create(BUCKET, "a.pptx", output_object="b/${Number}.jpg")
    assert len(gateway.calls) == 1
    assert gateway.asked("CreatePreviewJob")[0].request_id == ""


async def test_a_create_with_unknown_outcome_is_no_transient_error(
    gateway: FakeGateway, once: DocPreviewClient
) -> None:
    """Code that repeats those must not repeat this."""
    gateway.will("CreatePreviewJob", failure(grpc.StatusCode.UNKNOWN, "CREATE_OUTCOME_UNKNOWN"))
    with pytest.raises(OutcomeUnknown) as caught:
        await once.create(BUCKET, "a.pptx", output_object="b/${Number}.jpg")
    assert not isinstance(caught.value, TransientError)


@pytest.mark.parametrize("reason", ["PAGE_BUDGET_EXHAUSTED", "PAGE_BUDGET_TOO_SMALL"])
async def test_a_budget_that_is_used_up_is_no_transient_error(
    gateway: FakeGateway, client: DocPreviewClient, reason: str
) -> None:
    """Its period is a day or a month."""
    gateway.will("CreatePreviewJob", over_quota(reason, "caller:a:pages_per_day"))
    with pytest.raises(BudgetExhausted) as caught:
        await client.create(BUCKET, "a.pptx", output_object="b/${Number}.jpg")
    assert not isinstance(caught.value, TransientError)
    assert caught.value.retry != "now"


async def test_a_create_whose_connection_breaks_has_an_unknown_outcome(
    gateway: FakeGateway, once: DocPreviewClient
) -> None:
    """UNAVAILABLE from in between leaves open whether the job was made."""
    gateway.will("CreatePreviewJob", Failure(grpc.StatusCode.UNAVAILABLE, "Socket closed"))
    with pytest.raises(OutcomeUnknown):
        await once.create(BUCKET, "a.pptx", output_object="b/${Number}.jpg")
    assert len(gateway.calls) == 1


async def test_a_create_that_is_not_answered_in_time_has_an_unknown_outcome(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("CreatePreviewJob", Silence())
    with pytest.raises(OutcomeUnknown):
        await client.create(BUCKET, "a.pptx", output_object="b", timeout=timedelta(milliseconds=200))


async def test_a_create_without_a_gateway_is_unavailable(gateway: FakeGateway) -> None:
    """When no connection could be made nothing was sent: creating again is safe."""
    gateway.stop()
    async with DocPreviewClient(gateway.target) as client:
        with pytest.raises(Unavailable):
            await client.create(BUCKET, "a.pptx", output_object="b/${Number}.jpg", timeout=0.5)


async def test_a_create_for_a_host_without_address_is_unavailable() -> None:
    """Not an unknown outcome: nothing was sent."""
    options = ClientOptions(request_ids=False)
    async with DocPreviewClient("dns:///gateway.invalid:50051", options=options) as client:
        with pytest.raises(Unavailable):
            await client.create(BUCKET, "a.pptx", output_object="b/${Number}.jpg")


async def test_a_throttled_error_names_the_limit_and_whose_it_is(
    gateway: FakeGateway, client: DocPreviewClient
) -> None:
    gateway.will("GetPreviewJob", over_quota("RATE_LIMITED", "caller:a:GetPreviewJob"))
    with pytest.raises(Throttled) as caught:
        await client.get(BUCKET, JOB_ID)
    assert caught.value.quota == (("caller:a:GetPreviewJob", "used up"),)
