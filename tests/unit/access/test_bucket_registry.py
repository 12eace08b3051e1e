"""Which buckets exist for callers."""

from __future__ import annotations

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import GetPreviewJobRequest
from docpreview_gateway.access.bucket_registry import BucketRegistry
from docpreview_gateway.model.callers import ANONYMOUS
from docpreview_gateway.model.errors import GatewayError, InvalidRequest
from tests.unit.conftest import BUCKET, OTHER

REGISTER = BucketRegistry([BUCKET, OTHER])


def test_a_valid_request_gets_the_bucket_as_it_is_configured() -> None:
    """A valid request gets the bucket as it is configured."""
    assert REGISTER.admit(GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), ANONYMOUS) is BUCKET
    assert REGISTER.find(OTHER.name) is OTHER


@pytest.mark.parametrize("job_id", ["d1", "", "../x"])
def test_bucket_that_is_not_configured(job_id: str) -> None:
    """BUCKET_NOT_CONFIGURED, whatever else is wrong: who may not ask learns nothing of the rules (AIP-211)."""
    with pytest.raises(GatewayError) as caught:
        REGISTER.admit(GetPreviewJobRequest(bucket="stranger-1250000000", job_id=job_id), ANONYMOUS)
    assert caught.value.reason == r.ERROR_REASON_BUCKET_NOT_CONFIGURED
    assert REGISTER.find("stranger-1250000000") is None


@pytest.mark.parametrize("name", ["", "no appid", "a.b-1250000000", "evil.example/#-1250000000", "x" * 10_000])
def test_name_that_no_bucket_can_have(name: str) -> None:
    """A bad field like any other, named together with the rest."""
    with pytest.raises(InvalidRequest) as caught:
        REGISTER.admit(GetPreviewJobRequest(bucket=name, job_id="../x"), ANONYMOUS)
    assert [violation.field for violation in caught.value.violations] == ["bucket", "job_id"]


def test_register_without_buckets() -> None:
    """It admits nothing: deny by default."""
    with pytest.raises(GatewayError) as caught:
        BucketRegistry([]).admit(GetPreviewJobRequest(bucket=BUCKET.name, job_id="d1"), ANONYMOUS)
    assert caught.value.reason == r.ERROR_REASON_BUCKET_NOT_CONFIGURED


def test_invalid_request_for_a_configured_bucket() -> None:
    """Every violation."""
    with pytest.raises(InvalidRequest):
        REGISTER.admit(GetPreviewJobRequest(bucket=BUCKET.name, job_id="../x"), ANONYMOUS)


def test_output_by_default() -> None:
    """Results go to the source's bucket unless another is named."""
    assert REGISTER.admit_output(ObjectLocation(object="p"), BUCKET) is BUCKET
    assert REGISTER.admit_output(ObjectLocation(bucket=OTHER.name), BUCKET) is OTHER
    assert REGISTER.admit_output(ObjectLocation(bucket=OTHER.name, region=OTHER.region), BUCKET) is OTHER


def test_output_to_a_bucket_that_is_not_configured() -> None:
    """BUCKET_NOT_CONFIGURED: the cloud's key may be able to write there, callers are not."""
    with pytest.raises(GatewayError) as caught:
        REGISTER.admit_output(ObjectLocation(bucket="stranger-1250000000"), BUCKET)
    assert caught.value.reason == r.ERROR_REASON_BUCKET_NOT_CONFIGURED


@pytest.mark.parametrize("bucket", ["", OTHER.name])
def test_output_region_that_is_not_the_buckets(bucket: str) -> None:
    """A region is only ever a check, never where something goes."""
    with pytest.raises(InvalidRequest) as caught:
        REGISTER.admit_output(ObjectLocation(bucket=bucket, region="ap-beijing"), BUCKET)
    assert [violation.field for violation in caught.value.violations] == ["output.region"]
