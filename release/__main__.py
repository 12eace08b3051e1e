"""The rehearsal of a release, `make release-dry-run`: everything but the upload.

It works on a clone of the commit, so that nothing which is not committed gets into a package. The folder has what would
be uploaded, and nothing else: clone and other files of the work are in one beside it, `FOLDER.work`. SHA256SUMS is
written last, and not at all when something failed.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from release import images, packages, versions
from release.packages import PackageError, Work

if TYPE_CHECKING:
    from collections.abc import Callable


class Package(NamedTuple):
    """What one upload takes: where it goes, the tools that make it, and the function that does."""

    name: str
    registry: str
    tools: tuple[str, ...]
    make: Callable[[Work], None]


PACKAGES = (
    Package("python", "PyPI", (), packages.python),
    Package("images", "a registry of images", ("buildah",), images.images),
    Package("chart", "a registry of images", ("helm", "crane"), packages.chart),
    Package("go", "the tag clients/go/vVERSION", ("go", "git"), packages.go),
    Package("typescript", "npm", ("node", "npm"), packages.typescript),
    Package("rust", "crates.io", ("cargo",), packages.rust),
    Package("java", "Maven Central", ("java", "mvn"), packages.java),
)
"""In the order of the uploads, docs/releasing.md."""

_NAMES = [package.name for package in PACKAGES]


def main() -> int:
    """Make all packages, or those that are named; 1 when one fails.

    A package whose tools are missing is a failure when it was named, or with `CI` set.
    """
    parser = argparse.ArgumentParser(prog="python -m release", description=__doc__)
    parser.add_argument(
        "--into", type=Path, default=versions.ROOT / "build" / "release", help="folder that is made anew"
    )
    parser.add_argument("packages", nargs="*", metavar="PACKAGE", help="; ".join(_NAMES))
    options = parser.parse_args()
    unknown = sorted({*options.packages} - {*_NAMES})
    if unknown:
        parser.error(f"no package {', '.join(unknown)}: there are {', '.join(_NAMES)}")
    wrong = versions.problems()
    for line in wrong:
        print(f"VERSIONS DIFFER {line}", file=sys.stderr)
    work = _clone(options.into.absolute())
    results = [
        made(package, work, required=package.name in options.packages or bool(os.environ.get("CI")))
        for package in PACKAGES
        if package.name in (options.packages or _NAMES)
    ]
    if wrong or not all(results):
        print(f"{work.out} is NOT whole: it has no SHA256SUMS", file=sys.stderr)
        return 1
    _sum_up(work.out)
    return 0


def _clone(out: Path) -> Work:
    between = out.with_name(f"{out.name}.work")
    for folder in (out, between):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
    source = between / "source"
    git = ("git", "-C", str(versions.ROOT), "-c", "advice.detachedHead=false")
    subprocess.run([*git, "clone", "--quiet", str(versions.ROOT), str(source)], check=True)  # noqa: S603 - our own
    changed = subprocess.run([*git, "status", "--porcelain"], check=True, capture_output=True).stdout  # noqa: S603
    if changed:
        print("what is not committed is in no package: this is a rehearsal of the last commit", file=sys.stderr)
    return Work(source, out, between, versions.version(source))


def made(package: Package, work: Work, *, required: bool) -> bool:
    """Make a package into its folder and say so; false when it fails, or lacks its tools and is required."""
    missing = [tool for tool in package.tools if shutil.which(tool) is None]
    if missing:
        print(f"{package.name:12} NOT MADE: not on the PATH: {', '.join(missing)}", file=sys.stderr)
        return not required
    begin = time.monotonic()
    folder = work.out / package.name
    folder.mkdir()
    try:
        package.make(work._replace(out=folder))
    except PackageError as error:
        print(f"{package.name:12} FAILED: {error}", file=sys.stderr)
        return False
    print(f"{package.name:12} {work.version}, for {package.registry}: {time.monotonic() - begin:.0f} s", flush=True)
    return True


def _sum_up(out: Path) -> None:
    """The files that would be uploaded, with their sizes, and their hashes in a file."""
    files = [path for package in PACKAGES for path in sorted((out / package.name).glob("*")) if path.is_file()]
    lines = [f"{_hash(path)}  {path.relative_to(out)}\n" for path in files]
    (out / "SHA256SUMS").write_text("".join(lines))
    for path in files:
        print(f"{path.stat().st_size / 1024:10,.0f} KiB  {path.relative_to(out)}")


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


if __name__ == "__main__":
    sys.exit(main())
