"""Whose job is it? What a list of jobs says about a create, as a pure function.

The rules, in this order, over the whole list:

- a job with the create's marker is its job (the earliest, if there are several: the others are reported);
- a job with the create's token in its output path, made in the window of the create, is its job;
- if the cloud is known to echo user data, no other job can be it;
- else a job without marker that is equal in all that can be compared, made in the window, may be it. It is taken only
  where no other program makes jobs (`exclusive`), and only if there is exactly one and no other create of the place is
  open. Otherwise the outcome is ambiguous: never taken, and never "absent".
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_gateway.upstream.wire.user_data import TOKEN_PLACEHOLDER, read_marker

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview_gateway.creates.keys import CreateKeys
    from docpreview_gateway.creates.records import Record

DEFAULTS = PreviewOptions(
    target_format=PreviewOptions.TARGET_FORMAT_JPG,
    start_page=1,
    end_page=-1,
    paper_orientation=PreviewOptions.PAPER_ORIENTATION_PORTRAIT,
    paper_size=PreviewOptions.PAPER_SIZE_A4,
    comments=PreviewOptions.COMMENTS_HIDE,
    quality=100,
    zoom_percent=100,
    image_dpi=96,
    single_image=False,
)
"""What the cloud does without an option, and may echo (vendor document 460/46942)."""

_ALSO_ECHOED = {"comments": PreviewOptions.COMMENTS_SHOW, "end_page": 5001}
"""What replies and samples of the vendor have in place of the default, for an option that was not set."""


class Listed(NamedTuple):
    """A job of a list, and the marker in its user data; empty: none."""

    job: PreviewJob
    marker: str


@dataclass(frozen=True, slots=True)
class Found:
    """The create's job, and other jobs that were made for it too: they are billed a second time."""

    job: PreviewJob
    duplicates: tuple[PreviewJob, ...] = ()


@dataclass(frozen=True, slots=True)
class Reused:
    """A job of the same caller and `request_id`, but made for another request."""

    job: PreviewJob


@dataclass(frozen=True, slots=True)
class Maybe:
    """Jobs without marker, any of which may be the create's. `surely` those that also agree in what was left open."""

    jobs: tuple[PreviewJob, ...]
    surely: tuple[PreviewJob, ...]


@dataclass(frozen=True, slots=True)
class Nothing:
    """No job of the list can be the create's."""


Evidence: TypeAlias = Found | Reused | Maybe | Nothing


def weigh(record: Record, listed: Sequence[Listed], keys: CreateKeys, *, slack: float, echo: bool) -> Evidence:
    """What the list says about the create of an OPEN record. `echo`: the cloud is known to echo user data."""
    kinds = [_marked_for(record, each.marker, keys) for each in listed]
    mine = [each.job for each, kind in zip(listed, kinds, strict=True) if kind == "mine"]
    inside = [each for each in listed if _is_inside(each.job, record, slack)]
    if not mine:
        token = _token(record, keys)
        mine = [each.job for each in inside if not each.marker and token in each.job.output.object]
    if mine:
        first, *rest = sorted(mine, key=lambda job: (job.create_time.seconds, job.job_id))
        return Found(first, tuple(rest))
    if "other body" in kinds:
        return Reused(listed[kinds.index("other body")].job)
    if echo:
        return Nothing()
    unmarked = [each.job for each in inside if not each.marker and _may_be(each.job, record, keys)]
    if not unmarked:
        return Nothing()
    return Maybe(tuple(unmarked), tuple(job for job in unmarked if _has_defaults_else(job, record)))


def has_valid_marker(each: Listed, keys: CreateKeys) -> bool:
    """Whether the job carries a marker of this deployment, which proves that the cloud echoes user data."""
    marker = read_marker(each.marker)
    return marker is not None and keys.is_ours(marker)


def _marked_for(record: Record, text: str, keys: CreateKeys) -> str:
    if record.is_imported:
        return "mine" if text and text == record.render else ""
    marker = read_marker(text)
    if marker is None or marker.key != record.key or not keys.is_ours(marker):
        return ""
    return "mine" if marker.body == keys.marker(record.key, record.body, record.caller, b"").body else "other body"


def _token(record: Record, keys: CreateKeys) -> str:
    """What `${RequestToken}` in the output path of the create became."""
    # A reservation of an earlier version has no marker, and an empty text is in every path.
    return (record.render or record.key) if record.is_imported else keys.path_token(record.key, record.kid)


def _is_inside(job: PreviewJob, record: Record, slack: float) -> bool:
    """Whether the job was made while the create may have been accepted. The cloud's times are whole seconds."""
    created = job.create_time.seconds
    return record.first_start - slack - 1 <= created <= record.sign_end + slack + 1


def _may_be(job: PreviewJob, record: Record, keys: CreateKeys) -> bool:
    """Whether the job is equal in document, output and all options that the request sets, but for its password.

    A request that was too large to be kept may be any job's.
    """
    if not record.request:
        return True
    request = record.read_request()
    output = request.output.object.replace(TOKEN_PLACEHOLDER, _token(record, keys))
    places = (job.input.object, job.output.bucket or record.bucket, job.output.object)
    if places != (request.input_object, request.output.bucket or request.bucket, output):
        return False
    return all(getattr(job.options, field.name) == value for field, value in request.options.ListFields())


def _has_defaults_else(job: PreviewJob, record: Record) -> bool:
    """Whether the options that the request leaves open have the cloud's defaults; False if it was not kept."""
    if not record.request:
        return False
    asked = {field.name for field, _ in record.read_request().options.ListFields()}
    left_open = [(field.name, value) for field, value in job.options.ListFields() if field.name not in asked]
    return all(
        name == "source_format" or value in {getattr(DEFAULTS, name), _ALSO_ECHOED.get(name)}
        for name, value in left_open
    )
