"""Fails when the checked-in stubs of a client differ from what the compilers make of the .proto files now.

Stubs of a language whose tool is not on the PATH are not checked, which is said aloud, and with `CI` set is
a failure.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent


class Stubs(NamedTuple):
    """The generated files of one language: where they are, how they are named, and the tool that making them takes."""

    folder: str
    pattern: str
    tool: str | None


STUBS = (
    Stubs("protos", "*_pb2*.py*", None),
    Stubs("clients/go/docpreview", "*.pb.go", "go"),
    Stubs("clients/typescript/src/gen", "*.ts", "npm"),
    Stubs("clients/rust/src/generated", "*.rs", "cargo"),
)


def files(tree: Path, stubs: Stubs) -> dict[str, bytes]:
    """Path below `tree` to content of every generated file of a language."""
    found = (tree / stubs.folder).rglob(stubs.pattern)
    return {str(path.relative_to(tree)): path.read_bytes() for path in found if path.is_file()}


def main() -> int:
    """Generate into another place and compare; 1 when a file differs, is missing or is left over."""
    unchecked = [stubs for stubs in STUBS if stubs.tool and not shutil.which(stubs.tool)]
    stale: list[str] = []
    with tempfile.TemporaryDirectory() as scratch:
        subprocess.run(["make", "--silent", "generate", f"OUT={scratch}"], cwd=ROOT, check=True)  # noqa: S603, S607 - our own make
        for stubs in STUBS:
            if stubs not in unchecked:
                fresh, kept = files(Path(scratch), stubs), files(ROOT, stubs)
                stale += sorted(name for name in fresh.keys() | kept.keys() if fresh.get(name) != kept.get(name))
    for name in stale:
        print(f"{name} is not what `make generate` makes now: run it and commit the result", file=sys.stderr)
    for stubs in unchecked:
        print(f"THE STUBS IN {stubs.folder} ARE NOT CHECKED: {stubs.tool} is not on the PATH", file=sys.stderr)
    return 1 if stale or (unchecked and os.environ.get("CI")) else 0


if __name__ == "__main__":
    sys.exit(main())
