"""Registry of the configured buckets, and the policy's checks of requests for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.model import validation
from docpreview_gateway.model.buckets import BUCKET, Bucket
from docpreview_gateway.model.call import MAX_NOTED_JOBS
from docpreview_gateway.model.errors import GatewayError, InvalidRequest, Violation, echo
from docpreview_gateway.model.output_templates import SPREADSHEETS, source_format
from docpreview_gateway.model.policy import require

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from docpreview.v1.preview_job_pb2 import ObjectLocation
    from docpreview.v1.upload_service_pb2 import CreateUploadRequest
    from docpreview_gateway.model.call import Call
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.model.policy import Rights


_SELECTING = ("target_format", "start_page", "end_page", "page_ranges")


class BucketRequest(Protocol):
    """A request message with a `bucket`: all of the contract that is about one bucket."""

    @property
    def bucket(self) -> str:
        """Name of the bucket, as the caller gave it."""
        ...


class Admitted(NamedTuple):
    """An admitted create: the request after the policy's option rules, and its buckets."""

    request: CreatePreviewJobRequest
    bucket: Bucket
    output: Bucket


class BucketRegistry:
    """Maps bucket names in requests to configured buckets that the policy allows.

    Text from callers is only a key for look-ups: host names are built from the configuration's own strings.
    """

    def __init__(self, buckets: Iterable[Bucket]) -> None:
        self._buckets = {bucket.name: bucket for bucket in buckets}

    def admit(self, request: BucketRequest, call: Call) -> Bucket:
        """The bucket of a valid request; discloses how the call was served to a caller who sees all of the bucket.

        Authorization is checked before validation (AIP-211), except for the form of names, which tells nothing about
        what exists: InvalidRequest for a malformed name, NOT_PERMITTED when the policy does not allow the bucket to the
        caller, BUCKET_NOT_CONFIGURED for a well-formed name that is not configured, else InvalidRequest with every
        violation.
        """
        rights = call.caller.rights
        if rights is not None:
            validation.check_names(request)  # type: ignore[arg-type]  # every message with a bucket is in its table
            require(rights.of_bucket(request.bucket))
        call.response.disclosed = rights is None or rights.sees_all(request.bucket)
        bucket = self._admit(request)
        call.response.bucket, call.response.job_ids = bucket.name, _job_ids(request)
        return bucket

    def admit_upload(self, request: CreateUploadRequest, caller: Caller) -> Bucket:
        """`admit` for an upload. What may be uploaded to the bucket is left to the caller's `UploadRights`."""
        if caller.rights is not None:
            validation.check_names(request)
            require(caller.rights.of_upload_bucket(request.bucket))
        return self._admit(request)

    def admit_create(self, request: CreatePreviewJobRequest, caller: Caller) -> Admitted:
        """`admit` for a create: checks its document, output, preset and options, and that its pages can be budgeted."""
        if caller.rights is None:
            bucket = self._admit(request)
            if request.preset:
                raise InvalidRequest([Violation("preset", "must be empty: this gateway has no policy, and no presets")])
            if request.webhook:
                raise InvalidRequest(
                    [Violation("webhook", "must be empty: this gateway has no policy, and no webhooks")]
                )
        else:
            validation.check_names(request)
            _authorize_create(request, caller.rights)
            given = request
            request = _with_options(given, caller.rights)
            try:
                bucket = self._admit(request)
                _check_options(request, caller.rights)
            except InvalidRequest as error:
                raise InvalidRequest(_with_sources(error.violations, given, caller.rights)) from None
        if caller.budget is not None and caller.budget.count == "asked" and not caller.shadow:
            _check_asked_pages(request)
        if request.options.HasField("watermark"):
            request = self._with_image(request, bucket)
        return Admitted(request, bucket, self.admit_output(request.output, bucket))

    def _admit(self, request: BucketRequest) -> Bucket:
        bucket = self._buckets.get(request.bucket)
        if bucket is not None or not BUCKET.fullmatch(request.bucket):
            validation.check(request)  # type: ignore[arg-type]  # every message with a bucket is in its table
        if bucket is None:
            raise _not_configured(request.bucket)
        return bucket

    def admit_output(self, output: ObjectLocation, source: Bucket) -> Bucket:
        """The bucket that results go to, by default the source's.

        BUCKET_NOT_CONFIGURED; InvalidRequest for a region that is not the bucket's.
        """
        bucket = self._buckets.get(output.bucket) if output.bucket else source
        if bucket is None:
            raise _not_configured(output.bucket)
        if output.region and output.region != bucket.region:
            raise InvalidRequest([Violation("output.region", f"must be {bucket.region} or empty for this bucket")])
        return bucket

    def _with_image(self, request: CreatePreviewJobRequest, source: Bucket) -> CreatePreviewJobRequest:
        """The request with the configured bucket and region of its watermark's image. Raises as `admit_output`."""
        given = request.options.watermark.image
        bucket = self._buckets.get(given.bucket) if given.bucket else source
        if bucket is None:
            raise _not_configured(given.bucket)
        if given.region not in {"", bucket.region}:
            what = f"must be {bucket.region} or empty for this bucket"
            raise InvalidRequest([Violation("options.watermark.image.region", what)])
        result = CreatePreviewJobRequest()
        result.CopyFrom(request)
        image = result.options.watermark.image
        image.bucket, image.region = bucket.name, bucket.region
        return result

    def find(self, name: str) -> Bucket | None:
        """The configured bucket of this name, or None."""
        return self._buckets.get(name)

    def all(self) -> list[Bucket]:
        """The configured buckets."""
        return list(self._buckets.values())


def _job_ids(request: BucketRequest) -> tuple[str, ...]:
    if job_id := getattr(request, "job_id", ""):
        return (job_id,)
    return tuple(getattr(request, "job_ids", ())[:MAX_NOTED_JOBS])


def _authorize_create(request: CreatePreviewJobRequest, rights: Rights) -> None:
    require(rights.of_bucket(request.bucket))
    require(rights.of_input(request.bucket, request.input_object))
    require(rights.of_output(request.bucket, request.output.bucket or request.bucket, request.output.object))
    if request.preset:
        require(rights.of_preset(request.preset))
    if request.webhook:
        require(rights.of_webhook(request.webhook))
    require(rights.of_image_params(request.options.image_params))
    image = request.options.watermark.image
    if image.object:
        # Who may not use an object as a document may not have it drawn on pages.
        bucket = image.bucket or request.bucket
        require(rights.of_bucket(bucket))
        require(rights.of_input(bucket, image.object))


def _check_asked_pages(request: CreatePreviewJobRequest) -> None:
    """InvalidRequest when a valid create does not say how many pages it wants at most."""
    options, violations = request.options, []
    if options.target_format == PreviewOptions.TARGET_FORMAT_PDF:
        violations.append(
            Violation(
                "options.target_format",
                "must be an image format: a PDF has all pages, and your page budget admits only creates "
                "that say how many pages they want",
            )
        )
    elif validation.selected_pages(options) <= 0:
        violations.append(
            Violation(
                "options.page_ranges",
                "must be set, or options.end_page above 0: your page budget admits only creates that say how many "
                "pages they want",
            )
        )
    if source_format(request.input_object, options.source_format) in SPREADSHEETS and options.sheet_id <= 0:
        violations.append(
            Violation(
                "options.sheet_id",
                "must be above 0: pages count within a sheet, and your page budget admits only creates that say how "
                "many pages they want",
            )
        )
    if violations:
        raise InvalidRequest(violations)


def _with_options(request: CreatePreviewJobRequest, rights: Rights) -> CreatePreviewJobRequest:
    return rights.options.apply(request, rights.presets.get(request.preset) or PreviewOptions())


def _check_options(request: CreatePreviewJobRequest, rights: Rights) -> None:
    if violations := tuple(rights.options.violations(request)):
        raise InvalidRequest(violations)


def _with_sources(
    violations: Iterable[Violation], request: CreatePreviewJobRequest, rights: Rights
) -> Iterator[Violation]:
    """The violations; those of options that the caller did not set say what did."""
    preset = rights.presets.get(request.preset) or PreviewOptions()
    sources = rights.options.sources(request, preset)
    for found in violations:
        kind, _, path = found.field.partition(".")
        name = path.partition(".")[0]
        # An option of the caller's own may contradict the target or the selection of pages.
        names = [name] if name in sources else [other for other in _SELECTING if other in sources]
        told = [
            f"{each} is set by {'the preset' if sources[each] == 'preset' else f'{rights.rule}.{sources[each]}'}"
            for each in names
        ]
        if kind == "options" and told:
            yield Violation(found.field, f"{found.description}; by the gateway's policy {', '.join(told)}")
        else:
            yield found


def _not_configured(name: str) -> GatewayError:
    return GatewayError(
        reasons.ERROR_REASON_BUCKET_NOT_CONFIGURED,
        f"bucket {echo(name)} is not configured in this gateway; nothing was sent",
    )
