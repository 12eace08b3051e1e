"""Paths and commands of the checkout, for the tests in this directory."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from packaging.version import Version

if TYPE_CHECKING:
    from packaging.requirements import Requirement

ROOT = Path(__file__).parents[2]
PACKAGES = {
    "docpreview": ROOT / "protos" / "docpreview",
    "docpreview_gateway": ROOT / "server" / "docpreview_gateway",
    "docpreview_emulator": ROOT / "server" / "docpreview_emulator",
    "docpreview_client": ROOT / "clients" / "python" / "docpreview_client",
}
DISTRIBUTIONS = {
    "docpreview-protos": (ROOT / "protos", ("docpreview",)),
    "docpreview-client": (ROOT / "clients" / "python", ("docpreview_client",)),
    "docpreview-gateway": (ROOT, ("docpreview_gateway", "docpreview_emulator")),
}
"""The folder of each distribution, and its packages."""


def pyproject(distribution: str = "docpreview-gateway") -> dict[str, Any]:
    return tomllib.loads((DISTRIBUTIONS[distribution][0] / "pyproject.toml").read_text())


def lowest_of(requirement: Requirement) -> Version:
    """The lower bound of a requirement, which must have one."""
    (bound,) = [part.version for part in requirement.specifier if part.operator in {">=", "~="}]
    return Version(bound)


def tool(name: str) -> Path:
    """Path of a command in the tests' environment."""
    return Path(sys.executable).with_name(name)


def run(*command: object, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; its output is text."""
    return subprocess.run(
        [str(part) for part in command], check=False, capture_output=True, text=True, timeout=110, **options
    )


def tracked_files() -> list[Path]:
    """Files that git tracks and that exist."""
    listed = run("git", "-C", ROOT, "ls-files", "-z").stdout.split("\0")
    return [ROOT / name for name in listed if name and (ROOT / name).is_file()]
