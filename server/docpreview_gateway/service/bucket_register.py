"""The buckets that exist for callers: those that are configured, and no others."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.core import validation
from docpreview_gateway.core.buckets import BUCKET, Bucket
from docpreview_gateway.core.errors import GatewayError, InvalidRequest, Violation

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview.v1.preview_job_pb2 import ObjectLocation


class BucketRequest(Protocol):
    """A request message with a bucket; every one of the contract is."""

    @property
    def bucket(self) -> str:
        """Name of the bucket, as the caller gave it."""
        ...


class BucketRegister:
    """Turns names that callers give into buckets that the configuration vouches for.

    A caller's text is only ever looked up here: host names are made from the configuration's own strings.
    """

    def __init__(self, buckets: Iterable[Bucket]) -> None:
        self._buckets = {bucket.name: bucket for bucket in buckets}

    def admit(self, request: BucketRequest) -> Bucket:
        """The bucket of a valid request.

        Whether the bucket may be used comes before whether the request is well-formed (AIP-211): BUCKET_NOT_CONFIGURED
        for a well-formed name that is not configured, else InvalidRequest with every violation.
        """
        bucket = self._buckets.get(request.bucket)
        if bucket is not None or not BUCKET.fullmatch(request.bucket):
            validation.check(request)  # type: ignore[arg-type]  # every message with a bucket is in its table
        if bucket is None:
            raise _not_configured(request.bucket)
        return bucket

    def admit_output(self, output: ObjectLocation, source: Bucket) -> Bucket:
        """The bucket that results go to, by default the source's."""
        bucket = self._buckets.get(output.bucket) if output.bucket else source
        if bucket is None:
            raise _not_configured(output.bucket)
        if output.region and output.region != bucket.region:
            raise InvalidRequest([Violation("output.region", f"must be {bucket.region} or empty for this bucket")])
        return bucket

    def find(self, name: str) -> Bucket | None:
        """The bucket of this name, if it is configured."""
        return self._buckets.get(name)


def _not_configured(name: str) -> GatewayError:
    return GatewayError(
        reasons.ERROR_REASON_BUCKET_NOT_CONFIGURED, f"bucket {name} is not configured in this gateway; nothing was sent"
    )
