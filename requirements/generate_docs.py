"""Writes `docs/errors.md` from the comments of `error_reason.proto`; with `--check` it fails when they differ."""

import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet

from docpreview.v1 import error_reason_pb2
from docpreview_gateway.rpc.statuses import CODES

ROOT = Path(__file__).parent.parent
HEAD = """\
# Errors

Made from `protos/docpreview/v1/error_reason.proto` by `make docs`; `make check` fails when they differ.

{about}

| status | again? |
|---|---|
| UNAVAILABLE, RESOURCE_EXHAUSTED | after the time in `google.rpc.RetryInfo`, if there is one |
| UNKNOWN (`CREATE_OUTCOME_UNKNOWN`) | with the same `request_id` only |
| DEADLINE_EXCEEDED, CANCELLED | reads: yes; creates: with the same `request_id` only |
| every other | not before something else has changed |

gRPC's own retries are told when by `grpc-retry-pushback-ms`, which is -1 when waiting would be in vain.

"""
TABLE = "| reason | status | what it means, and what to do |\n|---|---|---|\n"
ENUM, VALUE = FileDescriptorProto.ENUM_TYPE_FIELD_NUMBER, 2


def comments() -> dict[tuple[int, ...], str]:
    """The comment before each part of the file, by the part's path."""
    buf = Path(sys.executable).parent / "buf"
    command = [str(buf), "build", str(ROOT / "protos"), "--as-file-descriptor-set", "-o-"]
    built = subprocess.run(command, check=True, capture_output=True)  # noqa: S603 - our own tool
    files = FileDescriptorSet.FromString(built.stdout).file
    (file,) = [found for found in files if found.name.endswith("error_reason.proto")]
    return {
        tuple(place.path): " ".join(place.leading_comments.split())
        for place in file.source_code_info.location
        if place.leading_comments
    }


def errors() -> str:
    """The whole document."""
    said = comments()
    lines = []
    for index, value in enumerate(error_reason_pb2.DESCRIPTOR.enum_types_by_name["ErrorReason"].values):
        if value.number == error_reason_pb2.ERROR_REASON_UNSPECIFIED:
            continue
        status, _, meaning = said[ENUM, 0, VALUE, index].partition(". ")
        if status != CODES[value.number].name:
            raise SystemExit(f"{value.name}: its comment says {status}, the gateway answers {CODES[value.number].name}")
        lines.append(f"| `{value.name.removeprefix('ERROR_REASON_')}` | {status} | {meaning} |\n")
    return HEAD.format(about=said[ENUM, 0]) + TABLE + "".join(lines)


def main() -> int:
    """Write the document, or compare it."""
    path = ROOT / "docs" / "errors.md"
    if "--check" not in sys.argv[1:]:
        path.write_text(errors())
        return 0
    if path.read_text() == errors():
        return 0
    print(f"docs/{path.name} is not what `make docs` makes now: run it and commit the result", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
