"""What a valid policy says without effect, or against itself: warnings for operators."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.model import validation
from docpreview_gateway.model.applied_rules import budget_warnings
from docpreview_gateway.model.policy import CREATE, CREATE_UPLOAD, covers_nothing
from docpreview_gateway.settings.policy_file import directory, parsed

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from docpreview_gateway.model.policy import Rights
    from docpreview_gateway.settings.policy_file import PolicyPart
    from docpreview_gateway.settings.sections import BucketSettings


def policy_warnings(path: Path, processes: int, buckets: Sequence[BucketSettings]) -> list[str]:
    """A line for each warning, of a file that `load_policy` accepts and as many gateway processes obey."""
    policy = parsed(path)
    callers = directory(policy).callers.values()
    budgets = [
        line for caller in callers for line in budget_warnings(f"callers.{caller.name}.budget", caller, processes)
    ]
    every = [caller.rights for caller in callers if caller.rights is not None]
    found = [line for rights in every for line in (*_prefixes(rights), *_refused(rights))]
    shared = [line for rights in every for line in shared_key_warnings(rights, buckets)]
    return [*_unused_estimates(policy), *budgets, *found, *shared]


def shared_key_warnings(rights: Rights, buckets: Sequence[BucketSettings], only: str | None = None) -> Iterator[str]:
    """Buckets, or this one, whose addresses for uploads are signed with a key that may do more than upload."""
    if not rights.has_method(CREATE_UPLOAD):
        return
    for bucket in buckets:
        upload = rights.uploads.get(bucket.name)
        if upload is not None and only in {None, bucket.name} and not bucket.upload_credentials:
            yield (
                f"{upload.rule}: the bucket has no upload_credentials, and a signature does not cover headers and "
                "query parameters that are added: whoever has an address of an upload may try what the key of "
                "credentials may do; set buckets[].upload_credentials to a key that may only PutObject and UploadPart"
            )


def _unused_estimates(policy: PolicyPart) -> Iterator[str]:
    for name, part in policy.callers.items():
        if part.budget is None or "estimate" not in part.budget.model_fields_set:
            continue
        if (rule := part.options.option_rules().selecting) is not None:
            yield f"callers.{name}.budget.estimate: is never used, because with {rule} every create selects its pages"


def _prefixes(rights: Rights) -> Iterator[str]:
    """Prefixes without keys, and uploads without a method."""
    for bucket in rights.buckets.values():
        listed = [("input_prefixes", bucket.inputs)]
        listed += [(f"outputs[{name}].prefixes", prefixes) for name, prefixes in bucket.outputs.items()]
        listed += [(f"pages[{name}].prefixes", prefixes) for name, prefixes in bucket.pages.items()]
        for what, prefixes in listed:
            yield from _empty_prefixes(f"{bucket.rule}.{what}", prefixes)
    if rights.uploads and not rights.has_method(CREATE_UPLOAD):
        yield f"{rights.rule}.uploads: has no effect, because {rights.rule}.methods does not name {CREATE_UPLOAD}"
    for upload in rights.uploads.values():
        yield from _empty_prefixes(f"{upload.rule}.prefixes", upload.prefixes)


def _empty_prefixes(rule: str, prefixes: Iterable[str]) -> Iterator[str]:
    for prefix in filter(covers_nothing, prefixes):
        yield f"{rule}: {prefix!r} covers nothing: no key with .. or empty parts is permitted"


def _refused(rights: Rights) -> Iterator[str]:
    """Options of the policy with which the policy refuses a create that has none of its own."""
    if not rights.has_method(CREATE):
        return
    told = set[str]()
    for preset in ("", *sorted(rights.presets)):
        made = CreatePreviewJobRequest(options=rights.presets.get(preset) or PreviewOptions())
        result = rights.options.apply(CreatePreviewJobRequest(), made.options)
        for wrong in (*validation.options_violations(result.options), *rights.options.violations(result)):
            problem = f"{wrong.field} {wrong.description}"
            if problem not in told:
                told.add(problem)
                what = f"with the preset {preset}" if preset else "without options of its own"
                yield f"{rights.rule}.options: a create {what} is refused: {problem}"
