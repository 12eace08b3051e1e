"""Reloading of changed files: when a change counts, and what happens to versions that cannot be used."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import structlog

from docpreview_gateway.wiring.reloading import InvalidFileError, Reloading, Watched

if TYPE_CHECKING:
    from collections.abc import Callable

PATHS = (Path("one"), Path("two"))


class Disk:
    """Two files that are loaded together as a text; a text with a question mark is invalid."""

    def __init__(self) -> None:
        self.files = {PATHS[0]: "a", PATHS[1]: "b"}
        self.taken: list[str] = []
        self.outcomes: list[str] = []
        self.refused: list[tuple[str, bool]] = []
        self.during_load: Callable[[], None] = lambda: None
        self.reloading = Reloading(self, self.files.__getitem__)
        self.reloading.add(Watched("pair", PATHS, self.load, self.taken.append))

    def load(self) -> str:
        text = "".join(self.files.values())
        self.during_load()
        if "?" in text:
            raise InvalidFileError("a question")
        if "!" in text:
            raise RecursionError(text)
        return text

    def reloaded(self, _what: str, outcome: str) -> None:
        self.outcomes.append(outcome)

    def file_refused(self, what: str, refused: bool) -> None:  # noqa: FBT001
        self.refused.append((what, refused))

    def certificate_ends(self, at: float) -> None:
        raise AssertionError(at)

    async def check(self, times: int = 1) -> list[str]:
        """What was taken over after this many checks."""
        for _ in range(times):
            await self.reloading.check()
        return self.taken


@pytest.fixture
def disk() -> Disk:
    """Files that were loaded at the start."""
    return Disk()


async def test_a_change_counts_at_the_second_check_that_finds_it(disk: Disk) -> None:
    """It is loaded once, and files that do not change are not loaded again."""
    assert await disk.check(3) == ["ab"]
    disk.files[PATHS[0]] = "A"
    assert await disk.check() == ["ab"]
    assert await disk.check(3) == ["ab", "Ab"]
    assert disk.outcomes == ["ok"]


async def test_a_file_that_differs_at_each_check_never_counts(disk: Disk) -> None:
    """It does once it stays as it is."""
    for length in range(1, 20):
        disk.files[PATHS[0]] = "x" * length
        assert await disk.check() == ["ab"]
    assert await disk.check() == ["ab", "x" * 19 + "b"]


async def test_files_that_belong_together_count_once_none_of_them_changes(disk: Disk) -> None:
    """Such as a certificate and its key, written one after the other."""
    disk.files[PATHS[0]] = "A"
    await disk.check()
    disk.files[PATHS[1]] = "B"
    assert await disk.check() == ["ab"]
    assert await disk.check() == ["ab", "AB"]


async def test_a_change_that_was_taken_back_between_two_checks_is_none(disk: Disk) -> None:
    """Nothing is loaded or counted."""
    disk.files[PATHS[0]] = "A"
    await disk.check()
    disk.files[PATHS[0]] = "a"
    assert await disk.check(3) == ["ab"]
    assert disk.outcomes == []


async def test_a_version_that_changes_while_it_is_loaded_does_not_count(disk: Disk) -> None:
    """Valid or not, nobody wrote it; the next one counts after two checks of its own."""

    def write_on() -> None:
        disk.files[PATHS[0]] = "whole"
        disk.during_load = lambda: None

    for half in ("half", "half?"):
        disk.files[PATHS[0]] = half
        disk.during_load = write_on
        assert await disk.check(2) == ["ab"]
    assert disk.outcomes == []
    assert await disk.check(2) == ["ab", "wholeb"]


async def test_an_invalid_version_is_counted_once_and_the_old_one_stays(disk: Disk) -> None:
    """The version before it counts again when it comes back."""
    disk.files[PATHS[0]] = "?"
    assert await disk.check(5) == ["ab"]
    disk.files[PATHS[0]] = "a"
    assert await disk.check(2) == ["ab", "ab"]
    assert disk.outcomes == ["invalid", "ok"]


async def test_a_file_is_refused_until_the_one_in_use_is_the_one_on_disk_again(disk: Disk) -> None:
    """From the start on: it was loaded then."""
    assert disk.refused == [("pair", False)]
    disk.files[PATHS[0]] = "?"
    await disk.check(5)
    disk.files[PATHS[0]] = "??"
    await disk.check(5)
    assert disk.refused[1:] == [("pair", True)] * 2
    disk.files[PATHS[0]] = "a"
    await disk.check(2)
    assert disk.refused[3:] == [("pair", False)]


async def test_files_of_a_kind_are_refused_while_one_of_them_is(disk: Disk) -> None:
    """Such as two sets of credentials."""
    more = {Path("three"): "c"}
    disk.files |= more
    disk.reloading.add(Watched("pair", [*more], lambda: "c", disk.taken.append))
    disk.files[PATHS[0]] = "?"
    await disk.check(2)
    disk.files[Path("three")] = "C"
    await disk.check(2)
    assert disk.refused[-1] == ("pair", True)


@pytest.mark.parametrize("broken", ["load", "take"])
async def test_an_error_that_nobody_expected_is_that_of_its_file_and_of_no_other(disk: Disk, broken: str) -> None:
    """Files that are watched after it are reloaded all the same; its type is logged, and not its text."""
    others: list[str] = []
    disk.reloading.add(Watched("other", PATHS[:1], lambda: disk.files[PATHS[0]], others.append))
    disk.files[PATHS[0]] = "A"
    if broken == "load":
        disk.files[PATHS[1]] = "!secret"
    else:
        disk.reloading._watched[0] = (Watched("pair", PATHS, disk.load, _fail), disk.reloading._watched[0][1])
    with structlog.testing.capture_logs() as logs:
        assert await disk.check(3) == ["ab"]
    assert others == ["a", "A"]
    assert disk.outcomes == ["invalid", "ok"]
    assert (
        logs[0]["why"] == f"one, two: cannot be used ({'RecursionError' if broken == 'load' else 'ZeroDivisionError'})"
    )


def _fail(_loaded: object) -> None:
    raise ZeroDivisionError


def test_an_error_that_nobody_expected_is_an_invalid_file_at_the_start_too() -> None:
    """One line tells, as for every other mistake."""

    def load() -> str:
        raise RecursionError

    reloading = Disk().reloading
    with pytest.raises(InvalidFileError, match=r"^one: cannot be used \(RecursionError\)$"):
        reloading.add(Watched("other", PATHS[:1], load, lambda _loaded: None))
