"""What a release is made of: one version everywhere, and a document that names every package."""

from __future__ import annotations

import os
import re
import shutil
from typing import TYPE_CHECKING

import pytest

from release import __main__ as rehearsal
from release import versions
from release.packages import Work
from tests.packaging.project import ROOT, run, tool, tracked_files

if TYPE_CHECKING:
    from pathlib import Path

DOCUMENT = ROOT / "docs" / "releasing.md"


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The files that have a version, in a folder of their own."""
    for name in {place.path for place in versions.PLACES}:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / name)
    return tmp_path


def test_all_packages_have_the_same_version() -> None:
    """`python -m release.versions` lists them, and sets another one."""
    assert versions.problems() == []


@pytest.mark.parametrize("place", versions.PLACES, ids=lambda place: f"{place.path} {place.pattern[:20]}")
def test_a_package_of_another_version_is_found(copy: Path, place: versions.Place) -> None:
    text = (copy / place.path).read_text()
    match = re.search(place.pattern, text, re.MULTILINE)
    assert match is not None
    (copy / place.path).write_text(f"{text[: match.start(1)]}9.9.9{text[match.end(1) :]}")
    assert versions.problems(copy) != []


def test_a_new_version_is_written_into_every_place(copy: Path) -> None:
    """And nothing else is changed."""
    before = versions.version(copy)
    versions.write("10.20.30", copy)
    assert versions.problems(copy) == []
    assert versions.version(copy) == "10.20.30"
    versions.write(before, copy)
    assert all((copy / place.path).read_text() == (ROOT / place.path).read_text() for place in versions.PLACES)


def test_every_manifest_of_a_package_has_its_place() -> None:
    """A package that is added to the repository gets its version with the others; programs of tests have none."""
    manifests = {"pyproject.toml", "package.json", "Cargo.toml", "pom.xml", "Chart.yaml"}
    files = (path.relative_to(ROOT) for path in tracked_files())
    tracked = {str(path) for path in files if path.name in manifests and path.parts[0] != "tests"}
    assert tracked == {place.path for place in versions.PLACES if place.path.rpartition("/")[2] in manifests}


def test_the_document_names_every_package_of_the_rehearsal() -> None:
    """In the order of the uploads."""
    text = DOCUMENT.read_text()
    places = [text.index(f"`{package.name}`") for package in rehearsal.PACKAGES]
    assert places == sorted(places)


def test_a_package_that_was_asked_for_and_lacks_its_tools_is_a_failure_that_names_them(tmp_path: Path) -> None:
    """And one that fails is: the result would look whole."""
    git = shutil.which("git")
    assert git is not None
    (tmp_path / "git").symlink_to(git)
    (tmp_path / "go").symlink_to(git)  # there, but what it is asked to do fails
    bare = {name: value for name, value in os.environ.items() if name != "CI"} | {"PATH": str(tmp_path)}
    for words, said in ((["chart"], "NOT MADE: not on the PATH: helm, crane"), (["go"], "FAILED")):
        done = run(tool("python"), "-m", "release", "--into", tmp_path / "out", *words, cwd=ROOT, env=bare)
        assert (done.returncode, done.stderr.count(said)) == (1, 1), done.stderr


def test_a_failed_release_leaves_no_checksums_that_a_check_would_pass(tmp_path: Path) -> None:
    """Not those of an earlier one either."""
    git = shutil.which("git")
    assert git is not None
    (tmp_path / "git").symlink_to(git)
    into = tmp_path / "out"
    into.mkdir()
    (into / "SHA256SUMS").write_text("")
    done = run(
        *(tool("python"), "-m", "release", "--into", into, "chart"), cwd=ROOT, env=os.environ | {"PATH": str(tmp_path)}
    )
    assert done.returncode == 1
    assert f"{into} is NOT whole: it has no SHA256SUMS" in done.stderr
    assert list(into.iterdir()) == []


@pytest.mark.parametrize("required", [True, False])
def test_a_rehearsal_of_everything_leaves_out_what_it_has_no_tools_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], *, required: bool
) -> None:
    """With `CI` set that is a failure, too."""
    package = rehearsal.Package("cobol", "none", ("a-program-that-nobody-has",), print)
    work = Work(tmp_path, tmp_path, tmp_path, "1.2.3")
    assert rehearsal.made(package, work, required=required) == (not required)
    assert "cobol        NOT MADE: not on the PATH: a-program-that-nobody-has" in capsys.readouterr().err


def test_the_rehearsal_knows_no_other_packages(tmp_path: Path) -> None:
    """It names those that there are."""
    done = run(tool("python"), "-m", "release", "--into", tmp_path / "out", "cobol", cwd=ROOT)
    assert done.returncode == 2
    assert "no package cobol: there are python, images, chart, go, typescript, rust, java" in done.stderr
