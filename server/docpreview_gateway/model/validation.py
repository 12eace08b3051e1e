"""Validation of requests: a table of rules for fields, one of rules across fields, one pass for all violations."""

from __future__ import annotations

from collections.abc import Callable
from operator import attrgetter
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from google.protobuf.message import Message

from docpreview.v1 import preview_job_service_pb2 as jobs
from docpreview.v1 import preview_queue_service_pb2 as queues
from docpreview.v1 import upload_service_pb2 as uploads
from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_gateway.model import rules
from docpreview_gateway.model.buckets import BUCKET, REGION
from docpreview_gateway.model.errors import InvalidRequest, Violation
from docpreview_gateway.model.output_templates import source_format, template_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_PAGE_URL_SECONDS = 3600
MAX_BATCH = 100
"""Jobs of a batch, at most."""

MAX_WAIT_SECONDS = 300
MAX_SINGLE_IMAGE_PAGES = 20
MAX_DOCUMENT_BYTES = 200 * 1024 * 1024
"""Bytes of the largest document that the cloud converts (vendor document 460/46942: 200 MB, taken as MiB)."""

MAX_UPLOAD_URL_SECONDS = 3600
_BUCKET = rules.matches(BUCKET.pattern, "must have the form <name>-<appid>, such as documents-1250000000")
_REGION = rules.matches(REGION.pattern, "must be a region in the cloud's spelling, such as ap-chongqing")
_QUEUE_ID = rules.matches("[A-Za-z0-9]{1,64}", "must be 1 to 64 letters and digits")
_JOB_ID = rules.matches("[A-Za-z0-9]{1,64}", "must be 1 to 64 letters and digits")
_NAME = rules.matches("[A-Za-z0-9._-]{1,64}", "must be 1 to 64 of A-Z a-z 0-9 . _ -")
_PAGE_URL_TTL = rules.duration(1, MAX_PAGE_URL_SECONDS)
_PIXELS = rules.between(0, 65_500)
_UUID = "[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}"
_PAGE_TOKEN = rules.at_most(1024)
_UPLOAD_TOKEN = rules.matches("[A-Za-z0-9_-]{1,4096}", "must be the upload_token of CreateUpload, unchanged")
_WORD = "[A-Za-z0-9!#$&^_.+-]+"
_MEDIA_TYPE = f"(?!.{{128}}){_WORD}/{_WORD}(; ?{_WORD}={_WORD})*"
_ETAG = rules.matches("[ -~]{1,128}", "must be an ETag header of a reply to a part, unchanged")


class Field(NamedTuple):
    """A rule for the field at `path`. Unset fields are skipped unless they are required."""

    path: str
    rule: rules.Rule
    required: bool = False


FIELDS: dict[type[Message], tuple[Field, ...]] = {
    jobs.CreatePreviewJobRequest: (
        Field("bucket", _BUCKET, required=True),
        Field("queue_id", _QUEUE_ID),
        Field("input_object", rules.object_key, required=True),
        Field("output.bucket", _BUCKET),
        Field("output.region", _REGION),
        Field("output.object", rules.object_key, required=True),
        Field(
            "options.source_format", rules.matches("[a-z0-9]{1,10}", "must be 1 to 10 lower-case letters and digits")
        ),
        Field("options.target_format", rules.known(PreviewOptions.TargetFormat.values())),
        Field("options.start_page", rules.between(1, rules.MAX_PAGE)),
        Field("options.end_page", rules.between(-1, rules.MAX_PAGE)),
        Field("options.page_ranges", rules.page_ranges),
        Field("options.sheet_id", rules.between(0, 10_000)),
        Field("options.paper_orientation", rules.known(PreviewOptions.PaperOrientation.values())),
        Field("options.paper_size", rules.known(PreviewOptions.PaperSize.values())),
        Field("options.password", rules.at_most(255)),
        Field("options.comments", rules.known(PreviewOptions.Comments.values())),
        Field("options.image_params", rules.at_most(2048)),
        Field("options.quality", rules.between(1, 100)),
        Field("options.zoom_percent", rules.between(10, 200)),
        Field("options.image_dpi", rules.between(96, 600)),
        Field("options.watermark.image.bucket", _BUCKET),
        Field("options.watermark.image.region", _REGION),
        Field("options.watermark.image.object", rules.object_key),
        Field("options.watermark.dx", _PIXELS),
        Field("options.watermark.dy", _PIXELS),
        Field("options.watermark.horizontal_spacing", _PIXELS),
        Field("options.watermark.vertical_spacing", _PIXELS),
        Field("user_data", rules.matches("[ -~]{0,960}", "must be at most 960 printable ASCII characters")),
        Field("request_id", rules.matches(_UUID, "must be a UUID, such as 7d3f9b7e-6d0c-4a51-9f0e-2f4c8f6f2a10")),
        Field("preset", _NAME),
        Field("webhook", _NAME),
    ),
    jobs.GetPreviewJobRequest: (
        Field("bucket", _BUCKET, required=True),
        Field("job_id", _JOB_ID, required=True),
        Field("page_url_ttl", _PAGE_URL_TTL),
    ),
    jobs.BatchGetPreviewJobsRequest: (
        Field("bucket", _BUCKET, required=True),
        Field("job_ids", rules.each(_JOB_ID, at_least=1, limit=MAX_BATCH), required=True),
        Field("page_url_ttl", _PAGE_URL_TTL),
    ),
    jobs.ListPreviewJobsRequest: (
        Field("bucket", _BUCKET, required=True),
        Field("queue_id", _QUEUE_ID),
        Field("states", rules.each(rules.known(PreviewJob.State.values()), limit=20)),
        Field("order", rules.known(jobs.ListPreviewJobsRequest.Order.values())),
        Field("created_after", rules.whole_seconds),
        Field("created_before", rules.whole_seconds),
        Field("page_size", rules.at_least(0)),
        Field("page_token", _PAGE_TOKEN),
    ),
    jobs.WaitPreviewJobRequest: (
        Field("bucket", _BUCKET, required=True),
        Field("job_id", _JOB_ID, required=True),
        Field("timeout", rules.duration(0, MAX_WAIT_SECONDS)),
        Field("page_url_ttl", _PAGE_URL_TTL),
    ),
    jobs.WatchPreviewJobRequest: (
        Field("bucket", _BUCKET, required=True),
        Field("job_id", _JOB_ID, required=True),
        Field("page_url_ttl", _PAGE_URL_TTL),
    ),
    jobs.WatchPreviewJobsRequest: (
        Field("bucket", _BUCKET, required=True),
        Field("job_ids", rules.each(_JOB_ID, at_least=1, limit=1000), required=True),
        Field("page_url_ttl", _PAGE_URL_TTL),
    ),
    queues.ListPreviewQueuesRequest: (
        Field("bucket", _BUCKET, required=True),
        Field("queue_ids", rules.each(_QUEUE_ID, limit=10)),
        Field("state", rules.known(queues.PreviewQueue.State.values())),
        Field("page_size", rules.at_least(0)),
        Field("page_token", _PAGE_TOKEN),
    ),
    uploads.CreateUploadRequest: (
        Field("bucket", _BUCKET, required=True),
        Field("object", rules.upload_key, required=True),
        Field("content_length", rules.between(1, MAX_DOCUMENT_BYTES), required=True),
        Field(
            "content_type",
            rules.matches(_MEDIA_TYPE, "must be a media type of at most 127 characters, such as application/pdf"),
        ),
        Field("content_md5", rules.bytes_of(16)),
        Field("ttl", rules.duration(1, MAX_UPLOAD_URL_SECONDS)),
    ),
    uploads.CompleteUploadRequest: (
        Field("upload_token", _UPLOAD_TOKEN, required=True),
        Field("etags", rules.each(_ETAG, at_least=1, limit=200), required=True),
    ),
    uploads.AbortUploadRequest: (Field("upload_token", _UPLOAD_TOKEN, required=True),),
}
"""Ranges and formats of the contract's comments; `tests/unit/model/test_validation.py` compares the two."""


def check(request: Message) -> None:
    """Raise InvalidRequest with every violation of `request`, if there is one."""
    violations = [*_field_violations(request), *_cross_violations(request)]
    if violations:
        raise InvalidRequest(violations)


def check_names(request: Message) -> None:
    """Raise InvalidRequest when a name that is looked up before the request is validated cannot exist by its form."""
    violations = list(_field_violations(request, _NAME_READERS))
    if violations:
        raise InvalidRequest(violations)


def options_violations(options: PreviewOptions) -> list[Violation]:
    """Violations by options alone, with paths as in a create."""
    request = jobs.CreatePreviewJobRequest(options=options)
    found = [*_field_violations(request), *_page_selection(request), *_image_options(request)]
    found += _watermark(request)
    return [violation for violation in found if violation.field.startswith("options.")]


def _field_violations(request: Message, readers: Readers | None = None) -> Iterator[Violation]:
    for field, read, is_set in (readers or _READERS)[type(request)]:
        if not is_set(request):
            if field.required:
                yield Violation(field.path, "is required")
        elif wrong := field.rule(read(request)):
            yield Violation(field.path, wrong)


def _cross_violations(request: Message) -> Iterator[Violation]:
    for rule in ACROSS.get(type(request), ()):
        yield from rule(request)


def _page_selection(request: jobs.CreatePreviewJobRequest) -> Iterator[Violation]:
    """One kind of selection: the vendor does not document which of two takes precedence."""
    options = request.options
    if options.page_ranges:
        for name in ("start_page", "end_page"):
            if options.HasField(name):
                yield Violation(f"options.{name}", "must not be set together with options.page_ranges")
    if options.HasField("end_page") and options.end_page != -1 and options.end_page < (options.start_page or 1):
        yield Violation("options.end_page", "must be -1 (to the last page) or at least start_page")


def _image_options(request: jobs.CreatePreviewJobRequest) -> Iterator[Violation]:
    options = request.options
    if options.target_format == PreviewOptions.TARGET_FORMAT_PDF:
        for name in ("single_image", "image_params"):
            if getattr(options, name):
                yield Violation(f"options.{name}", "applies to image targets only, not to TARGET_FORMAT_PDF")
    if options.single_image and selected_pages(options) > MAX_SINGLE_IMAGE_PAGES:
        yield Violation("options.single_image", f"takes at most {MAX_SINGLE_IMAGE_PAGES} pages: select fewer")


def _watermark(request: jobs.CreatePreviewJobRequest) -> Iterator[Violation]:
    if not request.options.HasField("watermark"):
        return
    watermark = request.options.watermark
    if not watermark.image.object:
        yield Violation("options.watermark.image.object", "is required: the key of an image in a configured bucket")
    for name in ("horizontal_spacing", "vertical_spacing"):
        if watermark.HasField(name) and not watermark.tiled:
            yield Violation(f"options.watermark.{name}", "applies to tiled watermarks only")


def selected_pages(options: PreviewOptions) -> int:
    """Number of pages that the options select; 0 or less when it depends on the document."""
    if options.page_ranges:
        return 0 if rules.page_ranges(options.page_ranges) else rules.pages_in(options.page_ranges)
    return options.end_page - (options.start_page or 1) + 1


def _source_and_template(request: jobs.CreatePreviewJobRequest) -> Iterator[Violation]:
    source = source_format(request.input_object, request.options.source_format)
    if request.input_object and not source:
        yield Violation("options.source_format", "is required because input_object has no suffix, such as .pptx")
    if request.output.object and (problem := template_problem(request.output.object, source)):
        yield Violation("output.object", problem)


def _time_order(request: jobs.ListPreviewJobsRequest) -> Iterator[Violation]:
    both = request.HasField("created_after") and request.HasField("created_before")
    if both and request.created_before.seconds < request.created_after.seconds:
        yield Violation("created_before", "must not be before created_after")


def _listable_states(request: jobs.ListPreviewJobsRequest) -> Iterator[Violation]:
    if PreviewJob.STATE_UNSPECIFIED in request.states:
        yield Violation("states", "must not contain STATE_UNSPECIFIED; leave the field empty for all states")


ACROSS: dict[type[Message], tuple[Callable[[Any], Iterator[Violation]], ...]] = {
    jobs.CreatePreviewJobRequest: (_page_selection, _image_options, _watermark, _source_and_template),
    jobs.ListPreviewJobsRequest: (_time_order, _listable_states),
}


def _reader(message: type[Message], path: str) -> tuple[Callable[[Any], Any], Callable[[Any], bool]]:
    """Functions that return the value of the field at `path`, and whether it is set."""
    *parents, leaf = path.split(".")
    descriptor: Any = message.DESCRIPTOR
    for name in parents:
        descriptor = descriptor.fields_by_name[name].message_type
    read = attrgetter(path)
    if not descriptor.fields_by_name[leaf].has_presence:
        return read, lambda request: bool(read(request))
    if not parents:
        return read, lambda request: bool(request.HasField(leaf))
    owner = attrgetter(".".join(parents))
    return read, lambda request: bool(owner(request).HasField(leaf))


Readers: TypeAlias = dict[type[Message], tuple[tuple[Field, Callable[[Any], Any], Callable[[Any], bool]], ...]]

_READERS: Readers = {
    message: tuple((field, *_reader(message, field.path)) for field in fields) for message, fields in FIELDS.items()
}

_NAMES = frozenset({"bucket", "output.bucket", "options.watermark.image.bucket", "preset"})
_NAME_READERS: Readers = {
    message: tuple(reader for reader in readers if reader[0].path in _NAMES) for message, readers in _READERS.items()
}
