"""The policy file: YAML in, a directory of callers with their rights out, or every mistake with its path."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

import yaml
from google.protobuf import json_format
from pydantic import AfterValidator, Field, ValidationError, model_validator

from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview_gateway.access import tokens
from docpreview_gateway.access.directory import Claim, Directory
from docpreview_gateway.model import validation
from docpreview_gateway.model.callers import ANONYMOUS, GATEWAY
from docpreview_gateway.model.contract import METHOD_NAMES
from docpreview_gateway.model.option_rules import CLOUD_DEFAULTS, OptionRules
from docpreview_gateway.model.policy import ANY_METHOD, OPERATORS_METHODS, BucketRights, Rights
from docpreview_gateway.settings.limits import CallerLimitSettings, Section

if TYPE_CHECKING:
    from collections.abc import Hashable, Iterator, Mapping
    from pathlib import Path

    from docpreview_gateway.model.callers import Caller


class PolicyError(Exception):
    """The policy cannot be used; `problems` has a line for each mistake, with its path and without secrets."""

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
    """The mapping itself, once it is known to be good."""
    _preview_options(value)
    return value


def _preview_options(value: dict[str, Any]) -> PreviewOptions:
    try:
        options = json_format.ParseDict(value, PreviewOptions())
    except json_format.ParseError as error:
        raise ValueError(f"must be fields of docpreview.v1.PreviewOptions: {error}") from None
    if options.password:
        raise ValueError("password: a document's password belongs to its request, not into a policy")
    if wrong := validation.options_violations(options):
        raise ValueError("; ".join(f"{found.field.removeprefix('options.')}: {found.description}" for found in wrong))
    return options


Prefix = Annotated[str, AfterValidator(_prefix)]
CallerName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9._-]{0,62}$")]
Options = Annotated[dict[str, Any], AfterValidator(_options)]
Names = Annotated[tuple[str, ...], Field(min_length=1)]


class ClaimPart(Section):
    """A signed token of this issuer whose claim has this value."""

    issuer: str = Field(min_length=1)
    claim: str = Field("sub", min_length=1)
    value: str = Field(min_length=1)


class IdentityPart(Section):
    """One proof of a caller's name; exactly one of the fields."""

    spiffe: str | None = Field(None, pattern=r"^spiffe://[a-z0-9._-]+/[A-Za-z0-9._/-]+$")
    dns: str | None = Field(None, pattern=r"^[a-z0-9-]+(\.[a-z0-9-]+)*$")
    token: str | None = None
    jwt: ClaimPart | None = None

    @model_validator(mode="after")
    def _one(self) -> IdentityPart:
        if len(self.model_fields_set) != 1:
            raise ValueError("must have exactly one of spiffe, dns, token, jwt")
        if self.token is not None:
            tokens.parse_hash(self.token)
        return self


class OutputPart(Section):
    """Where results may go."""

    bucket: str
    prefixes: tuple[Prefix, ...] = Field(min_length=1)


class BucketPart(Section):
    """A source bucket, and what may be done in it."""

    bucket: str
    input_prefixes: tuple[Prefix, ...] = Field(min_length=1)
    outputs: tuple[OutputPart, ...] = ()


class OptionsPart(Section):
    """What happens to the options of creates."""

    default: Options = Field({})
    force: Options = Field({})
    at_most: dict[Literal["image_dpi", "quality", "zoom_percent"], int] = Field({})
    max_pages: int | None = Field(None, ge=1, le=5000)

    @model_validator(mode="after")
    def _possible(self) -> OptionsPart:
        _preview_options({str(name): most for name, most in self.at_most.items()})
        return self

    def rules(self) -> OptionRules:
        """The rules for options of creates."""
        return OptionRules(
            _preview_options(self.default),
            _preview_options(self.force),
            MappingProxyType({name: self.at_most[name] for name in CLOUD_DEFAULTS if name in self.at_most}),
            self.max_pages,
        )


class CallerPart(CallerLimitSettings):
    """A caller: how it proves its name, what it may do, what it may use up."""

    identities: tuple[IdentityPart, ...] = Field(min_length=1)
    methods: Names
    buckets: tuple[BucketPart, ...] = ()
    dedupe_seconds: float = Field(0.0, ge=0, le=86400)
    options: OptionsPart = OptionsPart()
    presets: tuple[str, ...] = ()


class PolicyPart(Section):
    """The whole file."""

    version: Literal[1]
    presets: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")], Options] = Field({})
    callers: dict[CallerName, CallerPart] = Field(min_length=1)


def load_policy(path: Path, surroundings: Surroundings) -> Directory:
    """The policy in a file. PolicyError with every mistake."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise PolicyError([f"{path}: {error.strerror}"]) from None
    try:
        policy = PolicyPart.model_validate(yaml.load(text, _StrictLoader))  # noqa: S506 - a SafeLoader
    except ValidationError as error:
        raise PolicyError([_problem(dict(found)) for found in error.errors(include_input=False)]) from None
    except (yaml.YAMLError, ValueError) as error:
        raise PolicyError([_unreadable(error)]) from None
    if problems := [*_dangling(policy, surroundings), *_ambiguous(policy)]:
        raise PolicyError(problems)
    return _directory(policy)


class _StrictLoader(yaml.SafeLoader):
    """A key that stands twice is a mistake: of two callers of one name, one would silently be nobody."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:  # noqa: FBT001, FBT002 - the library's signature
        keys = Counter(self.construct_object(key) for key, _ in node.value)
        if twice := [str(key) for key, times in keys.items() if times > 1]:
            raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} stands twice", node.start_mark)
        return super().construct_mapping(node, deep)


def _unreadable(error: Exception) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        mark = error.problem_mark
        return re.sub(r"'[^']{2,}'", "...", f"line {mark.line + 1}, column {mark.column + 1}: {error.problem}")
    return "the file must be YAML text in UTF-8"


def _problem(found: dict[str, Any]) -> str:
    where = ".".join(map(str, found["loc"]))
    message = str(found["msg"]).removeprefix("Value error, ")
    if found["type"] == "extra_forbidden":
        message = "unknown key"
    return f"{where}: {message}" if where else message


def _dangling(policy: PolicyPart, around: Surroundings) -> Iterator[str]:
    """References to what is not there."""
    known_methods = METHOD_NAMES | OPERATORS_METHODS | {ANY_METHOD}
    for name, caller in policy.callers.items():
        where = f"callers.{name}"
        for wrong in sorted(set(caller.methods) - known_methods):
            yield f"{where}.methods: {wrong} is no method; there are {', '.join(sorted(known_methods))}"
        outputs = {output.bucket for bucket in caller.buckets for output in bucket.outputs}
        for wrong in sorted({bucket.bucket for bucket in caller.buckets} | outputs):
            if wrong not in around.buckets:
                yield f"{where}.buckets: {wrong} is not among the buckets of the configuration"
        for wrong in sorted(set(caller.presets) - set(policy.presets)):
            yield f"{where}.presets: there is no preset {wrong}"
        yield from _unprovable(f"{where}.identities", caller, around)


def _unprovable(where: str, caller: CallerPart, around: Surroundings) -> Iterator[str]:
    """Proofs that nobody could bring."""
    for identity in caller.identities:
        if (identity.spiffe or identity.dns) and not around.client_certificates:
            yield f"{where}: certificates are not asked for without tls.client_ca in the configuration"
        if identity.jwt is not None and identity.jwt.issuer not in around.issuers:
            yield f"{where}: {identity.jwt.issuer} is not among auth.jwt of the configuration"


def _ambiguous(policy: PolicyPart) -> Iterator[str]:
    """What would be two things at once."""
    for reserved, whose in ((ANONYMOUS, "callers of gateways without a policy"), (GATEWAY, "the gateway's own reads")):
        if reserved.name in policy.callers:
            yield f"callers.{reserved.name}: the name is taken by {whose}; choose another"
    proofs = Counter(_proof(identity) for caller in policy.callers.values() for identity in caller.identities)
    if any(times > 1 for times in proofs.values()):
        # Not quoted: it may be a token's hash.
        owners = {name for name, caller in policy.callers.items() for i in caller.identities if proofs[_proof(i)] > 1}
        yield f"callers.{', '.join(sorted(owners))}: an identity stands more than once"
    for name, caller in policy.callers.items():
        buckets = Counter(bucket.bucket for bucket in caller.buckets)
        if twice := [bucket for bucket, times in buckets.items() if times > 1]:
            yield f"callers.{name}.buckets: {twice[0]} stands twice; give one entry all of its prefixes"
        for bucket in caller.buckets:
            outputs = Counter(output.bucket for output in bucket.outputs)
            if twice := [output for output, times in outputs.items() if times > 1]:
                yield f"callers.{name}.buckets.{bucket.bucket}.outputs: {twice[0]} stands twice"


def _proof(identity: IdentityPart) -> Hashable:
    if identity.token is not None:
        return ("token", tokens.parse_hash(identity.token).token_id)
    return ("name", identity.spiffe or identity.dns) if identity.jwt is None else identity.jwt


def _directory(policy: PolicyPart) -> Directory:
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
        )
        for found in part.buckets
    }
    return Rights(
        rule,
        frozenset(part.methods),
        MappingProxyType(buckets),
        part.options.rules(),
        MappingProxyType({name: presets[name] for name in part.presets}),
    )
