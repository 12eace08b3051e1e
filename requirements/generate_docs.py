"""Writes the documents that are made from sources; with `--check` it fails when they differ.

`docs/errors.md` is made from the comments of `error_reason.proto` and of `JobFailure.Reason`, the two tables in
`docs/configuration.md` from the settings, the list of parts in `docs/architecture.md` from the import contract in
`pyproject.toml`, Envoy's files in `docs/envoy` from the gateway's settings there.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from enum import Enum
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet
from pydantic import BaseModel, SecretStr
from pydantic.fields import FieldInfo

from docpreview.v1 import error_reason_pb2
from docpreview.v1.preview_job_pb2 import JobFailure
from docpreview_gateway.rpc.statuses import CODES, RETRIES
from docpreview_gateway.settings.limits import TUNING
from docpreview_gateway.settings.loading import Settings, load
from docpreview_gateway.wiring import edge_config

ROOT = Path(__file__).parent.parent
HEAD = """\
# Errors

Made from the comments in `protos/docpreview/v1` by `make docs`; `make check` fails when they differ.

Calls that fail have a reason of the first list. A job that fails is no failed call: see [below](#jobs-that-failed).

{about}

| retry | what a program does |
|---|---|
{retries}
`grpc-retry-pushback-ms` sets the delay of gRPC's own retries. It is -1, which stops them, for `later` and `never`, and
if the wait exceeds the caller's deadline. Errors without a reason are not the gateway's: reads may be repeated, creates
with the same `request_id` only.

"""
TABLE = "| reason | status | retry | what it means, and what to do |\n|---|---|---|---|\n"
JOBS_HEAD = """
## Jobs that failed

`JobFailure.reason` of a job in the state FAILED. No client creates a job again by itself, and repeating a `request_id`
gets the same job. *Another create* means one of the same document with a new `request_id`.

| reason | what it means | another create |
|---|---|---|
"""
ANOTHER = "Another create: "
SETTINGS_TABLES = {"## What you will set\n": False, "## Tuning\n": True}
"""The sections of docs/configuration.md with a table, and whether it has the settings of type `Tuning`."""
SETTINGS_HEAD = "| key | default | values | meaning |\n|---|---|---|---|\n"
EDGE_FOLDER = Path("/etc/docpreview/edge")
"""Where the files of docs/envoy would be in use."""

LAYERS_BEGIN = "<!-- Generated from [tool.importlinter] in pyproject.toml by `make docs`: from here -->\n"
LAYERS_END = "<!-- to here -->"
LAYERS_HEAD = "| row | parts | what they are |\n|---|---|---|\n"
LAYER = re.compile(r'^  "([\w| ]+)", +# (.+)$', re.MULTILINE)
ENUM, VALUE = FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, 2
MESSAGE, NESTED_ENUM = FileDescriptorProto.MESSAGE_TYPE_FIELD_NUMBER, DescriptorProto.ENUM_TYPE_FIELD_NUMBER


def comments(name: str) -> dict[tuple[int, ...], str]:
    """The comment before each part of the file of this name, by the part's path."""
    buf = Path(sys.executable).parent / "buf"
    command = [str(buf), "build", str(ROOT / "protos"), "--as-file-descriptor-set", "-o-"]
    built = subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own tool
    files = FileDescriptorSet.FromString(built.stdout).file
    [file] = [found for found in files if found.name.endswith(f"/{name}")]
    return {
        tuple(place.path): " ".join(place.leading_comments.split())
        for place in file.source_code_info.location
        if place.leading_comments
    }


def errors() -> str:
    """The whole document."""
    said = comments("error_reason.proto")
    number = {name: index for index, name in enumerate(error_reason_pb2.DESCRIPTOR.enum_types_by_name)}
    lines = []
    for index, value in enumerate(error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values):
        if value.number == error_reason_pb2.ERROR_REASON_UNSPECIFIED:
            continue
        status, _, meaning = said[ENUM, number["ErrorReason"], VALUE, index].partition(". ")
        if status != CODES[value.number].name:
            raise SystemExit(f"{value.name}: its comment says {status}, the gateway answers {CODES[value.number].name}")
        name, retry = value.name.removeprefix("ERROR_REASON_"), _retry(RETRIES[value.number])
        lines.append(f"| `{name}` | {status} | {retry} | {meaning} |\n")
    retries = "".join(
        f"| {_retry(value)} | {said[ENUM, number['Retry'], VALUE, index]} |\n"
        for index, value in enumerate(error_reason_pb2.Retry.values())
    )
    about = said[ENUM, number["ErrorReason"]]
    return HEAD.format(about=about, retries=retries) + TABLE + "".join(lines) + JOBS_HEAD + "".join(_job_failures())


def _job_failures() -> Iterator[str]:
    """A row for each reason of a failed job."""
    said = comments("preview_job.proto")
    message = JobFailure.DESCRIPTOR
    number, nested = list(message.file.message_types_by_name), list(message.enum_types_by_name)
    where = (MESSAGE, number.index(message.name), NESTED_ENUM, nested.index("Reason"), VALUE)
    for index, value in enumerate(message.enum_types_by_name["Reason"].values):
        meaning, marker, another = said[*where, index].partition(ANOTHER)
        if not marker:
            raise SystemExit(f"{value.name}: its comment has to say what becomes of another create, after {ANOTHER!r}")
        yield f"| `{value.name.removeprefix('REASON_')}` | {meaning.strip()} | {another} |\n"


def _retry(value: int) -> str:
    return error_reason_pb2.Retry.Name(value).removeprefix("RETRY_").lower()


def configuration() -> str:
    """The document as it stands, with new tables."""
    text = (ROOT / "docs" / "configuration.md").read_text()
    for heading, tuning in SETTINGS_TABLES.items():
        begin = text.index(SETTINGS_HEAD, text.index(heading))
        end = text.index("\n\n", begin)
        text = text[:begin] + SETTINGS_HEAD + "\n".join(_rows(Settings, "", tuning=tuning)) + text[end:]
    return text


def architecture() -> str:
    """The document as it stands, with a new list of the parts."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    before, _, rest = text.partition(LAYERS_BEGIN)
    after = rest.partition(LAYERS_END)[2]
    rows = [
        f"| {number} | {' '.join(f'`{part}`' for part in parts.split(' | '))} | {about} |\n"
        for number, (parts, about) in enumerate(layers(), start=1)
    ]
    return f"{before}{LAYERS_BEGIN}\n{LAYERS_HEAD}{''.join(rows)}\n{LAYERS_END}{after}"


def envoy() -> dict[str, bytes]:
    """Envoy's files, by their paths below docs/."""
    made = edge_config.files(load(ROOT / "docs" / "envoy" / "gateway.yaml"), EDGE_FOLDER)
    return {f"envoy/{name}": content for name, content in made.items()}


def layers() -> list[tuple[str, str]]:
    """The rows of the import contract, from the top, each with the comment behind it."""
    block = (ROOT / "pyproject.toml").read_text().partition("\nlayers = [\n")[2].partition("\n]")[0]
    return LAYER.findall(block)


def _rows(section: type[BaseModel], prefix: str, *, tuning: bool) -> Iterator[str]:
    """A row for each key of the table that has a description, those of a section behind its own.

    A description that begins with the value's form, `{...}`, stands for the keys within.
    """
    for name, field in section.model_fields.items():
        path, description = prefix + name, field.description or ""
        if not description and not any(True for _ in _sections(field.annotation)):
            raise SystemExit(f"{path}: give its Field a description, which is its row in docs/configuration.md")
        if description and (TUNING in field.metadata) == tuning:
            yield f"| `{path}` | {_default(field)} | {_values(field)} | {description} |"
        if description.startswith("`{"):
            continue
        for inner, suffix in _sections(field.annotation):
            yield from _rows(inner, f"{path}{suffix}.", tuning=tuning)


def _sections(annotation: Any) -> Iterator[tuple[type[BaseModel], str]]:  # noqa: ANN401 - annotations of any kind
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation, ""
    outer = {tuple: "[]", dict: ".<name>"}.get(get_origin(annotation) or type(None), "")
    for part in get_args(annotation):
        for inner, suffix in _sections(part):
            yield inner, outer + suffix


def _default(field: FieldInfo) -> str:
    value = field.default
    if field.is_required() or isinstance(value, BaseModel | SecretStr) or value in ("", {}):
        return ""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, int | float):
        return f"`{value:.15g}`"
    return f"`[{', '.join(value)}]`" if isinstance(value, tuple) else f"`{value}`"


def _values(field: FieldInfo) -> str:
    """The range of a number, or the words that there are."""
    words = [word for part in (field.annotation, *get_args(field.annotation)) for word in _words(part)]
    if words:
        return ", ".join(f"`{word}`" for word in words)
    bounds = {
        kind: getattr(rule, kind)
        for rule in field.metadata
        for kind in ("ge", "gt", "le", "lt")
        if getattr(rule, kind, None) is not None
    }
    lowest = f"{bounds['ge']:.15g}" if "ge" in bounds else f"above {bounds['gt']:.15g}" if "gt" in bounds else ""
    highest = f"{bounds['le']:.15g}" if "le" in bounds else ""
    return " to ".join(filter(None, (lowest, highest)))


def _words(annotation: Any) -> tuple[str, ...]:  # noqa: ANN401 - annotations of any kind
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return tuple(str(member.value) for member in annotation)
    return get_args(annotation) if get_origin(annotation) is Literal else ()


def main() -> int:
    """Write the documents, or compare them."""
    stale = []
    for name, made in {
        "errors.md": errors().encode(),
        "configuration.md": configuration().encode(),
        "architecture.md": architecture().encode(),
        **envoy(),
    }.items():
        path = ROOT / "docs" / name
        if "--check" not in sys.argv[1:]:
            path.write_bytes(made)
        elif not path.exists() or path.read_bytes() != made:
            stale.append(name)
    for name in stale:
        print(f"docs/{name} is not what `make docs` makes now: run it and commit the result", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
