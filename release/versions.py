"""The one version of all packages, and every place where it is written.

`python -m release.versions` prints the places and fails when they differ; `python -m release.versions 0.2.0` writes
that version into all of them. The Go module is not among them: its version is its tag.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
VERSION = r"(\d+\.\d+\.\d+)"


class Place(NamedTuple):
    """A file, and a pattern whose only group is the version, wherever it stands in the file."""

    path: str
    pattern: str


_PROJECT = rf'^version = "{VERSION}"$'
_OURS = rf'"docpreview-protos~={VERSION}"'
PLACES = (
    Place("pyproject.toml", _PROJECT),
    Place("pyproject.toml", _OURS),
    Place("protos/pyproject.toml", _PROJECT),
    Place("clients/python/pyproject.toml", _PROJECT),
    Place("clients/python/pyproject.toml", _OURS),
    Place("examples/production/compose.yaml", rf"image: docpreview-gateway:{VERSION}"),
    Place("clients/typescript/package.json", rf'^  "version": "{VERSION}"'),
    Place("clients/typescript/package-lock.json", rf'"name": "@docpreview/client",\n\s+"version": "{VERSION}"'),
    Place("clients/typescript/src/version.ts", rf'VERSION = "{VERSION}"'),
    Place("clients/rust/Cargo.toml", _PROJECT),
    Place("clients/rust/Cargo.lock", rf'name = "docpreview-client"\nversion = "{VERSION}"'),
    Place("clients/java/pom.xml", rf"<artifactId>docpreview-client</artifactId>\s+<version>{VERSION}</version>"),
    Place("clients/java/README.md", rf"<artifactId>docpreview-client</artifactId>\s+<version>{VERSION}</version>"),
    Place("clients/java/README.md", rf"com\.docpreview:docpreview-client:{VERSION}"),
    Place("compose.yaml", rf"image: docpreview-(?:gateway|emulator):{VERSION}"),
    Place("helm/docpreview-gateway/Chart.yaml", rf"^(?:version|appVersion): {VERSION}$"),
)


def found(place: Place, root: Path = ROOT) -> list[str]:
    """The versions at a place; one that has none says so by an empty list."""
    return re.findall(place.pattern, (root / place.path).read_text(encoding="utf-8"), re.MULTILINE)


def version(root: Path = ROOT) -> str:
    """The version of the gateway, which all others have to have."""
    (one,) = found(PLACES[0], root)
    return one


def problems(root: Path = ROOT) -> list[str]:
    """Places without a version or with another one, a line each."""
    wanted = version(root)
    return [
        f"{place.path}: {', '.join(versions) or 'no version'} at {place.pattern!r}, and not {wanted}"
        for place in PLACES
        if set(versions := found(place, root)) != {wanted}
    ]


def write(new: str, root: Path = ROOT) -> None:
    """Put another version into every place."""
    for place in PLACES:
        path = root / place.path
        text = path.read_text(encoding="utf-8")
        for match in reversed(list(re.finditer(place.pattern, text, re.MULTILINE))):
            text = text[: match.start(1)] + new + text[match.end(1) :]
        path.write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Compare the places, or write a version into them; 1 when they differ, 2 for wrong usage."""
    if len(arguments) > 1 or (arguments and not re.fullmatch(VERSION, arguments[0])):
        print("usage: python -m release.versions [MAJOR.MINOR.PATCH]", file=sys.stderr)
        return 2
    if arguments:
        write(arguments[0])
    for place in PLACES:
        print(f"{', '.join(found(place)) or 'NONE':15} {place.path}")
    wrong = problems()
    for line in wrong:
        print(line, file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
