"""The layout by parts: the import contract, the package, its unit tests and the documents have the same parts."""

from __future__ import annotations

import re

from tests.packaging.project import PACKAGES, ROOT, pyproject

GATEWAY = PACKAGES["docpreview_gateway"]
UNIT = ROOT / "tests" / "unit"
NO_PARTS = {"client", "emulator"}
"""Folders of unit tests for the other packages."""

SHARED_HELPERS = {"__init__.py", "conftest.py"}
MODULE = re.compile(r"`([a-z_]+(?:/[a-z_]+)*)\.py`")


def contract() -> dict[str, object]:
    contracts = pyproject()["tool"]["importlinter"]["contracts"]
    (found,) = [each for each in contracts if each["type"] == "layers" and each["containers"] == [GATEWAY.name]]
    return dict(found)


def rows() -> list[str]:
    layers = contract()["layers"]
    assert isinstance(layers, list)
    return layers


def parts() -> set[str]:
    return {part for row in rows() for part in row.split(" | ")}


def visible(folder: str = ".") -> set[str]:
    """Names in a folder of unit tests, without caches."""
    return {path.name for path in (UNIT / folder).iterdir() if path.name != "__pycache__"}


def test_the_import_contract_has_eleven_rows_and_is_exhaustive() -> None:
    """A reader takes it in at a glance: one line a row, each with a comment that says what its parts are."""
    assert contract()["exhaustive"] is True
    assert len(rows()) == 11
    text = (ROOT / "pyproject.toml").read_text()
    commented = re.findall(
        r'^  "([\w| ]+)", +# \S.*$', text.partition("\nlayers = [\n")[2].partition("\n]")[0], re.MULTILINE
    )
    assert commented == rows()


def test_the_top_of_the_package_has_the_parts_of_the_contract_and_nothing_else() -> None:
    """A new folder or module at the top needs a row in the contract."""
    found = {path.name for path in GATEWAY.iterdir() if path.name != "__pycache__"}
    modules = {name.removesuffix(".py") for name in found - {"__init__.py", "py.typed"}}
    assert {"__init__.py", "py.typed"} <= found
    assert modules == parts()
    assert all((GATEWAY / part).is_dir() for part in parts() - {"__main__"})


def test_the_unit_tests_mirror_the_parts() -> None:
    """Each folder of unit tests is a part or another package, and no test stands outside of a folder."""
    folders = {name for name in visible() if (UNIT / name).is_dir()}
    assert folders - NO_PARTS == parts() - {"__main__"}
    assert visible() - folders == SHARED_HELPERS


def test_subfolders_of_unit_tests_mirror_those_of_their_part() -> None:
    """Tests of `upstream/wire` stand in `tests/unit/upstream/wire`."""
    inner = {
        f"{part}/{name}" for part in parts() - {"__main__"} for name in visible(part) if (UNIT / part / name).is_dir()
    }
    assert {name for name in inner if not (GATEWAY / name).is_dir()} == set()


def test_the_architecture_names_modules_that_exist() -> None:
    """Paths in docs/architecture.md are below the gateway's package."""
    named = set(MODULE.findall((ROOT / "docs" / "architecture.md").read_text())) - {"ports"}
    assert {name for name in named if not (GATEWAY / f"{name}.py").is_file()} == set()


def test_the_architecture_has_a_row_for_each_middleware() -> None:
    """`permits.py` is a part of the host limiter."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = set(re.findall(r"^ +\| `(\w+)` \|", text, re.MULTILINE))
    modules = {path.stem for path in (GATEWAY / "upstream" / "middleware").glob("*.py")} - {"__init__", "permits"}
    assert named == modules
