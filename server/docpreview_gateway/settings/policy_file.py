"""Loader of the policy file: from YAML to a directory of callers, or every mistake with its path."""

from __future__ import annotations

import copy
import re
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import yaml
from google.protobuf import json_format
from pydantic import AfterValidator, Field, ValidationError, model_validator

from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview_gateway.access import tokens
from docpreview_gateway.access.directory import Claim, Directory
from docpreview_gateway.model import strict_yaml, validation
from docpreview_gateway.model.callers import ANONYMOUS, GATEWAY
from docpreview_gateway.model.contract import METHOD_NAMES
from docpreview_gateway.model.option_rules import CLOUD_DEFAULTS, OptionRules
from docpreview_gateway.model.policy import ANY_METHOD, OPERATORS_METHODS, BucketRights, Rights, UploadRights
from docpreview_gateway.model.webhooks import WebhookTarget
from docpreview_gateway.settings.limits import CallerLimitSettings, Section
from docpreview_gateway.settings.problems import problems
from docpreview_gateway.settings.webhook_targets import WebhookPart  # noqa: TC001 - pydantic reads the annotations

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterable, Iterator, Mapping
    from pathlib import Path

    from docpreview_gateway.model.callers import Caller


class PolicyError(Exception):
    """An invalid policy; `problems` has a line for each mistake, with its path and without secrets."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class Surroundings(NamedTuple):
    """What a policy may refer to in the settings: buckets, issuers of signed tokens, client certificates."""

    buckets: frozenset[str]
    issuers: frozenset[str]
    client_certificates: bool


def _prefix(value: str) -> str:
    if value and (not value.endswith("/") or value.startswith("/")):
        raise ValueError("must end with / and not begin with it, such as in/, or be empty for the whole bucket")
    return value


def _options(value: dict[str, Any]) -> dict[str, Any]:
    """The mapping itself, after validation."""
    _preview_options(value)
    return value


def _preview_options(value: dict[str, Any]) -> PreviewOptions:
    names = {field.json_name: field.name for field in PreviewOptions.DESCRIPTOR.fields}
    if unknown := sorted(map(str, value.keys() - {*names, *names.values()})):
        raise ValueError(f"unknown option {', '.join(unknown)}; PreviewOptions has {', '.join(names.values())}")
    try:
        options = json_format.ParseDict(value, PreviewOptions())
    except json_format.ParseError as error:
        # The library tells the rest in the words of Python, and quotes values.
        field = _FAILED_FIELD.match(str(error))
        which = f"{field[1]} has a value of another kind" if field else "they have values of other kinds"
        raise ValueError(
            f"must be fields of docpreview.v1.PreviewOptions, such as {{image_dpi: 96}}: {which}"
        ) from None
    if options.password:
        raise ValueError("password: a document's password belongs in its request, not in a policy")
    if violations := validation.options_violations(options):
        raise ValueError(
            "; ".join(f"{wrong.field.removeprefix('options.')}: {wrong.description}" for wrong in violations)
        )
    return options


_FAILED_FIELD = re.compile(r"Failed to parse ([A-Za-z_.]+) field")
Prefix = Annotated[str, AfterValidator(_prefix)]
CallerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Options = Annotated[dict[str, Any], AfterValidator(_options)]
MediaType = Annotated[str, Field(pattern=r"^[a-z0-9!#$&^_.+-]+/[a-z0-9!#$&^_.+-]+$", max_length=127)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class ClaimPart(Section):
    """An identity by a signed token: its issuer, and the value of a claim."""

    issuer: str = Field(min_length=1)
    claim: str = Field("sub", min_length=1)
    value: str = Field(min_length=1)


class IdentityPart(Section):
    """An identity of a caller; exactly one field is set."""

    spiffe: str | None = Field(None, pattern=r"^spiffe://[a-z0-9._-]+/[A-Za-z0-9._/-]+$")
    dns: str | None = Field(None, pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*$")
    token: str | None = None
    jwt: ClaimPart | None = None

    @model_validator(mode="after")
    def _exactly_one(self) -> IdentityPart:
        if len(self.model_fields_set) != 1:
            raise ValueError("must have exactly one of spiffe, dns, token, jwt")
        if self.token is not None:
            tokens.parse_hash(self.token)
        return self


class OutputPart(Section):
    """A bucket with results, and prefixes of results in it."""

    bucket: str
    prefixes: tuple[Prefix, ...] = Field(min_length=1)


class BucketPart(Section):
    """A source bucket, its permitted inputs and their outputs, and further results whose addresses are permitted."""

    bucket: str
    input_prefixes: tuple[Prefix, ...] = Field(min_length=1)
    outputs: tuple[OutputPart, ...] = ()
    pages: tuple[OutputPart, ...] = ()


class UploadsPart(Section):
    """What may be uploaded to a bucket."""

    bucket: str
    prefixes: tuple[Prefix, ...] = Field(min_length=1)
    max_bytes: int = Field(validation.MAX_DOCUMENT_BYTES, ge=1, le=validation.MAX_DOCUMENT_BYTES)
    types: tuple[MediaType, ...] = Field((), min_length=1)
    overwrite: bool = False

    def rights(self, rule: str) -> UploadRights:
        """The rights, at this path."""
        return UploadRights(rule, self.prefixes, self.max_bytes, frozenset(self.types), self.overwrite)


class OptionsPart(Section):
    """Rules for the options of a caller's creates."""

    default: Options = Field({})
    force: Options = Field({})
    at_most: dict[Literal["image_dpi", "quality", "zoom_percent"], Annotated[int, Field(strict=True)]] = Field({})
    max_pages: int | None = Field(None, ge=1, le=5000)

    @model_validator(mode="after")
    def _valid_bounds(self) -> OptionsPart:
        _preview_options({str(name): most for name, most in self.at_most.items()})
        return self

    def option_rules(self) -> OptionRules:
        """The rules in the form that the gateway applies."""
        return OptionRules(
            _preview_options(self.default),
            _preview_options(self.force),
            MappingProxyType({name: self.at_most[name] for name in CLOUD_DEFAULTS if name in self.at_most}),
            self.max_pages,
        )


class CallerPart(CallerLimitSettings):
    """A caller: identities, rights and limits."""

    identities: tuple[IdentityPart, ...] = Field(min_length=1)
    methods: Names
    buckets: tuple[BucketPart, ...] = ()
    uploads: tuple[UploadsPart, ...] = ()
    dedupe_seconds: float = Field(0.0, ge=0, le=86400)
    options: OptionsPart = OptionsPart()
    presets: tuple[str, ...] = ()
    page_urls: bool = True
    webhooks: tuple[str, ...] = ()

    @model_validator(mode="after")
    def _pages_with_addresses(self) -> CallerPart:
        if not self.page_urls and any(bucket.pages for bucket in self.buckets):
            raise ValueError("page_urls: false leaves nothing to buckets[].pages; take one of them away")
        return self


class PolicyPart(Section):
    """The policy file."""

    version: Literal[1]
    presets: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], Options] = Field({})
    webhooks: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], WebhookPart] = Field({})
    callers: dict[CallerName, CallerPart] = Field(min_length=1)


def load_policy(path: Path, surroundings: Surroundings) -> Directory:
    """Load a policy file. PolicyError with every mistake."""
    values = _read(path)
    mistakes: list[str] = []
    try:
        policy: PolicyPart | None = PolicyPart.model_validate(values)
    except ValidationError as error:
        mistakes += problems(error, PolicyPart, unknown="unknown key")
        policy = _sound_part(values)
    if policy is not None:
        mistakes += [
            *_unknown_references(policy, surroundings),
            *_unknown_images(policy, surroundings),
            *_duplicates(policy),
        ]
    if mistakes or policy is None:
        raise PolicyError(mistakes)
    return directory(policy)


def parsed(path: Path) -> PolicyPart:
    """A policy file that `load_policy` accepts. PolicyError when it has changed since."""
    try:
        return PolicyPart.model_validate(_read(path))
    except ValidationError as error:
        raise PolicyError(problems(error, PolicyPart, unknown="unknown key")) from None


def _read(path: Path) -> dict[str, Any]:
    try:
        values = strict_yaml.parse(path.read_bytes())
    except OSError as error:
        raise PolicyError([error.strerror or type(error).__name__]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise PolicyError([strict_yaml.mistake(error) or "the file must be YAML text in UTF-8"]) from None
    if not isinstance(values, dict):
        raise PolicyError(["the file must be a YAML mapping, with the keys version and callers"])
    return values


def _sound_part(values: dict[str, Any]) -> PolicyPart | None:
    """The policy without what is wrong: first keys of callers, then, where these are needed, whole callers."""
    presets, webhooks = values.get("presets", {}), values.get("webhooks", {})
    if not isinstance(presets, dict) or not isinstance(webhooks, dict):
        return None
    # What is wrong within these is told elsewhere: here only their names count.
    named = {name: {"url": "https://h.example/", "secret_file": "s"} for name in webhooks}
    values = copy.deepcopy(values) | {"version": 1, "presets": {name: {} for name in presets}, "webhooks": named}
    for depth in (len(("callers", "name", "key")), len(("callers", "name"))):
        try:
            return PolicyPart.model_validate(values)
        except ValidationError as error:
            for wrong in error.errors(include_input=False, include_url=False):
                _drop(values, wrong["loc"][:depth])
    with suppress(ValidationError):
        return PolicyPart.model_validate(values)
    return None


def _drop(values: object, path: tuple[int | str, ...]) -> None:
    """Take the value at a path of keys away, if there is one."""
    for key in path[:-1]:
        values = values.get(key) if isinstance(values, dict) else None
    if isinstance(values, dict):
        values.pop(path[-1], None)


def _unknown_references(policy: PolicyPart, surroundings: Surroundings) -> Iterator[str]:
    """Problems: references to methods, buckets and presets that do not exist."""
    known_methods = METHOD_NAMES | OPERATORS_METHODS | {ANY_METHOD}
    for name, caller in policy.callers.items():
        where = f"callers.{name}"
        for wrong in sorted(set(caller.methods) - known_methods):
            yield f"{where}.methods: {wrong} is not a method; there are {', '.join(sorted(known_methods))}"
        results = {found.bucket for bucket in caller.buckets for found in (*bucket.outputs, *bucket.pages)}
        for wrong in sorted({bucket.bucket for bucket in caller.buckets} | results):
            if wrong not in surroundings.buckets:
                yield f"{where}.buckets: {wrong} is not among the buckets of the configuration"
        for wrong in sorted({upload.bucket for upload in caller.uploads} - surroundings.buckets):
            yield f"{where}.uploads: {wrong} is not among the buckets of the configuration"
        for wrong in sorted(set(caller.presets) - set(policy.presets)):
            yield f"{where}.presets: there is no preset {wrong}"
        for wrong in sorted(set(caller.webhooks) - set(policy.webhooks)):
            yield f"{where}.webhooks: there is no webhook {wrong} among webhooks of this file"
        yield from _unusable_identities(f"{where}.identities", caller, surroundings)


def _unknown_images(policy: PolicyPart, surroundings: Surroundings) -> Iterator[str]:
    """Problems: watermarks whose image is in a bucket that does not exist."""
    layers = {f"presets.{preset}": options for preset, options in policy.presets.items()}
    for name, caller in policy.callers.items():
        layers[f"callers.{name}.options.default"] = caller.options.default
        layers[f"callers.{name}.options.force"] = caller.options.force
    for where, options in layers.items():
        bucket = _preview_options(options).watermark.image.bucket
        if bucket and bucket not in surroundings.buckets:
            yield f"{where}.watermark.image: {bucket} is not among the buckets of the configuration"


def _unusable_identities(where: str, caller: CallerPart, surroundings: Surroundings) -> Iterator[str]:
    """Problems: identities that no call can prove with this configuration."""
    for identity in caller.identities:
        if (identity.spiffe or identity.dns) and not surroundings.client_certificates:
            yield f"{where}: client certificates need tls.client_ca in the configuration"
        if identity.jwt is not None and identity.jwt.issuer not in surroundings.issuers:
            yield f"{where}: {identity.jwt.issuer} is not among auth.jwt of the configuration"


def _duplicates(policy: PolicyPart) -> Iterator[str]:
    """Problems: reserved names, and identities, buckets or outputs that are listed more than once."""
    for reserved, owner in ((ANONYMOUS, "callers of gateways without a policy"), (GATEWAY, "the gateway's own reads")):
        if reserved.name in policy.callers:
            yield f"callers.{reserved.name}: the name is reserved for {owner}; choose another"
    identities = Counter(_key(identity) for caller in policy.callers.values() for identity in caller.identities)
    if any(times > 1 for times in identities.values()):
        # Not quoted: it may be a token's hash.
        owners = {name for name, caller in policy.callers.items() for i in caller.identities if identities[_key(i)] > 1}
        yield f"callers.{', '.join(sorted(owners))}: an identity is listed more than once"
    for name, caller in policy.callers.items():
        yield from _repeated_buckets(f"callers.{name}.buckets", caller.buckets)
        if repeated := _repeated(upload.bucket for upload in caller.uploads):
            yield f"callers.{name}.uploads: {repeated[0]} is listed more than once; give one entry all of its prefixes"


def _repeated_buckets(where: str, buckets: tuple[BucketPart, ...]) -> Iterator[str]:
    if repeated := _repeated(found.bucket for found in buckets):
        yield f"{where}: {repeated[0]} is listed more than once; give one entry all of its prefixes"
    for bucket in buckets:
        for key, listed in (("outputs", bucket.outputs), ("pages", bucket.pages)):
            if repeated := _repeated(found.bucket for found in listed):
                yield f"{where}.{bucket.bucket}.{key}: {repeated[0]} is listed more than once"


def _repeated(names: Iterable[str]) -> list[str]:
    return [name for name, times in Counter(names).items() if times > 1]


def _key(identity: IdentityPart) -> Hashable:
    if identity.token is not None:
        return ("token", tokens.parse_hash(identity.token).token_id)
    return ("name", identity.spiffe or identity.dns) if identity.jwt is None else identity.jwt


def directory(policy: PolicyPart) -> Directory:
    """The callers of a policy whose references exist."""
    presets = {name: _preview_options(options) for name, options in policy.presets.items()}
    callers = {name: _caller(name, part, presets) for name, part in policy.callers.items()}
    every = [(identity, callers[name]) for name, part in policy.callers.items() for identity in part.identities]
    hashes = [(tokens.parse_hash(found.token), caller) for found, caller in every if found.token is not None]
    return Directory(
        callers=MappingProxyType(callers),
        names=MappingProxyType(
            {found.spiffe or f"dns:{found.dns}": caller for found, caller in every if found.spiffe or found.dns}
        ),
        tokens=MappingProxyType({found.token_id: (found, caller) for found, caller in hashes}),
        claims=MappingProxyType(
            {Claim(i.jwt.issuer, i.jwt.claim, i.jwt.value): caller for i, caller in every if i.jwt is not None}
        ),
        webhooks=MappingProxyType(
            {name: WebhookTarget(name, part.url, part.secret_file) for name, part in policy.webhooks.items()}
        ),
    )


def _caller(name: str, part: CallerPart, presets: Mapping[str, PreviewOptions]) -> Caller:
    rights = _rights(f"callers.{name}", part, presets)
    return replace(part.caller(name), dedupe_seconds=part.dedupe_seconds, rights=rights)


def _rights(rule: str, part: CallerPart, presets: Mapping[str, PreviewOptions]) -> Rights:
    buckets = {
        found.bucket: BucketRights(
            f"{rule}.buckets[{found.bucket}]",
            found.input_prefixes,
            MappingProxyType({output.bucket: output.prefixes for output in found.outputs}),
            MappingProxyType({pages.bucket: pages.prefixes for pages in found.pages}),
        )
        for found in part.buckets
    }
    return Rights(
        rule,
        frozenset(part.methods),
        MappingProxyType(buckets),
        part.options.option_rules(),
        MappingProxyType({name: presets[name] for name in part.presets}),
        part.page_urls,
        MappingProxyType({found.bucket: found.rights(f"{rule}.uploads[{found.bucket}]") for found in part.uploads}),
        frozenset(part.webhooks),
    )
