"""Fails when the checked-in stubs differ from what the compiler makes of the .proto files now."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent


def stubs(tree: Path) -> dict[str, bytes]:
    """Relative path to content of every generated file below `tree`."""
    return {str(path.relative_to(tree)): path.read_bytes() for path in tree.rglob("*_pb2*.py*") if path.is_file()}


def main() -> int:
    """Generate into a copy of the sources and compare; 1 when a file differs, is missing or is left over."""
    with tempfile.TemporaryDirectory() as scratch:
        copy = Path(scratch)
        shutil.copytree(ROOT / "protos", copy / "protos", ignore=shutil.ignore_patterns("*_pb2*", "__pycache__"))
        shutil.copy(ROOT / "Makefile", copy / "Makefile")
        (copy / ".venv-generate").symlink_to(ROOT / ".venv-generate")
        (copy / "requirements").symlink_to(ROOT / "requirements")
        subprocess.run(["make", "--silent", "-C", scratch, "generate"], check=True)  # noqa: S603, S607 - our own make
        fresh, kept = stubs(copy / "protos"), stubs(ROOT / "protos")
    stale = sorted(name for name in fresh.keys() | kept.keys() if fresh.get(name) != kept.get(name))
    for name in stale:
        print(f"protos/{name} is not what `make generate` makes now: run it and commit the result", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
