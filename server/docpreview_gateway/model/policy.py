"""Authorization: decisions on the rights of callers, each with the rule of the policy behind it.

Anything that no rule allows is denied. A decision is a function of policy and request; it looks nothing up.
"""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote

from docpreview_gateway.model.errors import NotPermitted, echo
from docpreview_gateway.model.option_rules import OptionRules, names_image
from docpreview_gateway.model.rules import MAX_KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions

ANY_METHOD = "*"
"""In `Rights.methods`: every method of the contract, but not the operators' services."""

REFLECTION = "ServerReflection"
"""In `Rights.methods`: gRPC's reflection service."""

CREATE = "CreatePreviewJob"
CREATE_UPLOAD = "CreateUpload"
ABORT_UPLOAD = "AbortUpload"

UPLOADING = (CREATE_UPLOAD, "CompleteUpload")
"""Methods that ask the rule of uploads. An upload is aborted by whoever began it, whatever the rule says now."""

OPERATORS_METHODS = frozenset({REFLECTION})

_MAX_DECODINGS = 4
"""Rounds of decoding after which a key that still changes is denied: no ordinary name is encoded so often."""


class Decision(NamedTuple):
    """A decision. `rule` is the path of the rule in the policy; `why` completes the sentence that begins with it."""

    allowed: bool
    rule: str
    why: str


def _allowed(rule: str, why: str) -> Decision:
    return Decision(allowed=True, rule=rule, why=why)


def _denied(rule: str, why: str) -> Decision:
    return Decision(allowed=False, rule=rule, why=why)


def require(decision: Decision) -> None:
    """Raise NOT_PERMITTED unless the decision allows. The message names the rule, and reveals nothing that exists."""
    if not decision.allowed:
        raise NotPermitted(
            decision.rule,
            f"not permitted by the gateway's policy: {decision.rule} {decision.why}; nothing was sent",
        )


@dataclass(frozen=True, slots=True)
class BucketRights:
    """Rights of a caller in a source bucket; `rule` is their path in the policy.

    `inputs` are prefixes of the documents that it may use and whose jobs it may see. `outputs` has the prefixes of
    results by output bucket, `pages` those of further results whose addresses it may have. An empty prefix is the whole
    bucket.
    """

    rule: str
    inputs: tuple[str, ...]
    outputs: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))
    pages: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True, slots=True)
class UploadRights:
    """What a caller may upload to a bucket; `rule` is the path of these rights in the policy.

    Objects under `prefixes` of at most `max_bytes` and of one of these media `types` (none: of any), in the place of an
    object that exists only with `overwrite`.
    """

    rule: str
    prefixes: tuple[str, ...]
    max_bytes: int
    types: frozenset[str] = frozenset()
    overwrite: bool = False

    def of_object(self, key: str) -> Decision:
        """Whether the caller may upload an object of this key."""
        return _of_key(f"{self.rule}.prefixes", self.prefixes, key)

    def of_length(self, content_length: int) -> Decision:
        """Whether the caller may upload a content of so many bytes."""
        rule = f"{self.rule}.max_bytes"
        if content_length <= self.max_bytes:
            return _allowed(rule, f"is {self.max_bytes}")
        return _denied(rule, f"is {self.max_bytes}, and the content has {content_length}")

    def of_type(self, content_type: str) -> Decision:
        """Whether the caller may upload a content of this type; its parameters do not count."""
        rule, media = f"{self.rule}.types", content_type.partition(";")[0].strip().lower()
        if not self.types:
            return _allowed(rule, "is not set")
        known = media in self.types
        return (_allowed if known else _denied)(rule, f"{'names' if known else 'does not name'} {echo(media)}")


@dataclass(frozen=True, slots=True)
class Rights:
    """Rights of a caller; `rule` is their path in the policy.

    `presets` are the options that it may use, by name. Without `page_urls` it gets no addresses of pages. `uploads` are
    by bucket. `webhooks` are the names of targets that its creates may name.
    """

    rule: str
    methods: frozenset[str]
    buckets: Mapping[str, BucketRights]
    options: OptionRules = field(default_factory=OptionRules)
    presets: Mapping[str, PreviewOptions] = field(default_factory=lambda: MappingProxyType({}))
    page_urls: bool = True
    uploads: Mapping[str, UploadRights] = field(default_factory=lambda: MappingProxyType({}))
    webhooks: frozenset[str] = frozenset()

    def has_method(self, name: str) -> bool:
        """Whether `of_method` allows, without the cost of a `Decision`."""
        return name in self.methods or (ANY_METHOD in self.methods and name not in OPERATORS_METHODS)

    def of_method(self, name: str) -> Decision:
        """Whether the caller may call the method of this name."""
        rule = f"{self.rule}.methods"
        if self.has_method(name):
            return _allowed(rule, f"names {name if name in self.methods else ANY_METHOD}")
        return _denied(rule, f"does not name {name}")

    def of_bucket(self, name: str) -> Decision:
        """Whether the caller may use the source bucket of this name."""
        rights = self.buckets.get(name)
        if rights is None:
            return _denied(f"{self.rule}.buckets", f"does not name {echo(name)}")
        return _allowed(rights.rule, f"names {name}")

    def of_input(self, bucket: str, key: str) -> Decision:
        """Whether the caller may use this document, and see its jobs."""
        rights = self.buckets.get(bucket)
        if rights is None:
            return self.of_bucket(bucket)
        return _of_key(f"{rights.rule}.input_prefixes", rights.inputs, key)

    def of_output_bucket(self, bucket: str, output: str) -> Decision:
        """Whether any results of this source bucket may go to the output bucket."""
        rights = self.buckets.get(bucket)
        if rights is None:
            return self.of_bucket(bucket)
        known = output in rights.outputs
        return (_allowed if known else _denied)(
            f"{rights.rule}.outputs", f"{'names' if known else 'does not name'} {echo(output)}"
        )

    def of_output(self, bucket: str, output: str, key: str) -> Decision:
        """Whether results of this source bucket may go to this key, which may be a template, in the output bucket."""
        decision = self.of_output_bucket(bucket, output)
        if not decision.allowed:
            return decision
        rights = self.buckets[bucket]
        prefixes = rights.outputs[output]
        return _of_key(f"{rights.rule}.outputs[{output}].prefixes", prefixes, key)

    def of_page(self, bucket: str, output: str, key: str) -> Decision:
        """Whether the caller may have an address of this page of a job of the source bucket."""
        if not self.page_urls:
            return _denied(f"{self.rule}.page_urls", "is false")
        decision = self.of_output(bucket, output, key)
        rights = self.buckets.get(bucket)
        if decision.allowed or rights is None:
            return decision
        if output not in rights.pages:
            return decision if output in rights.outputs else _denied(f"{rights.rule}.pages", f"does not name {output}")
        return _of_key(f"{rights.rule}.pages[{output}].prefixes", rights.pages[output], key)

    def page_places(self, bucket: str) -> tuple[str, ...]:
        """Where the pages are, as `<bucket>/<prefix>`, of which `of_page` allows addresses."""
        rights = self.buckets.get(bucket)
        if rights is None or not self.page_urls:
            return ()
        named = (*rights.outputs.items(), *rights.pages.items())
        return tuple(sorted({f"{output}/{prefix}" for output, prefixes in named for prefix in prefixes}))

    def of_preset(self, name: str) -> Decision:
        """Whether the caller may use this preset."""
        rule = f"{self.rule}.presets"
        return _allowed(rule, f"names {name}") if name in self.presets else _denied(rule, f"does not name {echo(name)}")

    def of_webhook(self, name: str) -> Decision:
        """Whether the caller's creates may name this webhook target."""
        rule = f"{self.rule}.webhooks"
        return (
            _allowed(rule, f"names {name}") if name in self.webhooks else _denied(rule, f"does not name {echo(name)}")
        )

    def of_image_params(self, own: str) -> Decision:
        """Whether a create may have these `image_params` of its own: no image whose owner nobody could check."""
        rule = f"{self.rule}.options"
        if self.options.force.image_params or not names_image(own):
            return _allowed(rule, "allows the image_params")
        return _denied(
            rule,
            "lets image_params name no image, and of watermarks only texts (watermark/2): use options.watermark",
        )

    def of_upload_bucket(self, bucket: str) -> Decision:
        """Whether the caller may upload anything to the bucket of this name."""
        rights = self.uploads.get(bucket)
        if rights is None:
            return _denied(f"{self.rule}.uploads", f"does not name {echo(bucket)}")
        return _allowed(rights.rule, f"names {bucket}")

    def sees_all(self, bucket: str) -> bool:
        """Whether the caller may see every job of the bucket, so that none has to be checked."""
        rights = self.buckets.get(bucket)
        return rights is not None and "" in rights.inputs

    def sees(self, job: PreviewJob, bucket: str) -> bool:
        """Whether the caller may see this job of the bucket."""
        rights = self.buckets.get(bucket)
        return rights is not None and job.input.bucket in {"", bucket} and _within(job.input.object, rights.inputs)


class Question(NamedTuple):
    """A hypothetical call for `explain`; None: any value. `input_object` of an upload is its object."""

    method: str
    bucket: str | None
    input_object: str | None
    output_bucket: str | None
    output_object: str | None
    preset: str | None
    content_length: int | None = None
    content_type: str | None = None


def explain(rights: Rights | None, question: Question) -> list[Decision]:
    """Every decision on such a call, in order; the call is allowed when all of them allow."""
    if rights is None:
        return [_allowed("(no policy)", "allows everything")]
    bucket, decisions = question.bucket, [rights.of_method(question.method)]
    if bucket is None:
        return decisions
    if question.method in UPLOADING:
        return [*decisions, *_explain_upload(rights, bucket, question)]
    decisions.append(rights.of_bucket(bucket))
    # What a caller may do in a bucket is the same rule.
    return [*decisions, *_explain_create(rights, bucket, question)] if decisions[-1].allowed else decisions


def _explain_create(rights: Rights, bucket: str, question: Question) -> list[Decision]:
    decisions, output = [], question.output_bucket or bucket
    if question.input_object is not None:
        decisions.append(rights.of_input(bucket, question.input_object))
    if question.output_object is not None:
        decisions.append(rights.of_output(bucket, output, question.output_object))
    elif question.method == CREATE:
        decisions.append(rights.of_output_bucket(bucket, output))
    if question.preset is not None:
        decisions.append(rights.of_preset(question.preset))
    return decisions


def _explain_upload(rights: Rights, bucket: str, question: Question) -> list[Decision]:
    decisions, found = [rights.of_upload_bucket(bucket)], rights.uploads.get(bucket)
    if found is None:
        return decisions
    if question.input_object is not None:
        decisions.append(found.of_object(question.input_object))
    if question.content_length is not None:
        decisions.append(found.of_length(question.content_length))
    if question.content_type is not None:
        decisions.append(found.of_type(question.content_type))
    return decisions


def covers_nothing(prefix: str) -> bool:
    """Whether no key can be under the prefix: one with dots or empty parts, which no permitted key has."""
    return bool(prefix) and not _is_plain(f"{prefix}x")


def _of_key(rule: str, prefixes: tuple[str, ...], key: str) -> Decision:
    if _within(key, prefixes):
        found = next(prefix for prefix in prefixes if key.startswith(prefix))
        return _allowed(rule, f"{found!r} covers it" if found else "is the whole bucket")
    return _denied(rule, "has no prefix that covers it" if prefixes else "is empty")


def _within(key: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a key is under a prefix, and still is after further decoding or normalisation of its path."""
    if "" in prefixes:
        return True
    return len(key) <= MAX_KEY_BYTES and key.startswith(prefixes) and _is_plain(key)


def _is_plain(key: str) -> bool:
    """Whether no decoding of the key leaves its folder: by dots, empty parts, percent signs or look-alikes."""
    for _ in range(_MAX_DECODINGS):
        *folders, name = key.replace("\\", "/").split("/")
        if any(part.strip() in {"", ".", ".."} for part in folders) or name.strip() in {".", ".."}:
            return False
        decoded = unicodedata.normalize("NFKC", unquote(key))
        if decoded == key:
            return True
        key = decoded
    return False
