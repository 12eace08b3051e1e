"""Tables in the project's own documents: every row belongs to a table, and has its columns."""

from __future__ import annotations

import re

import pytest

from tests.packaging.project import ROOT
from tests.packaging.test_links import documents

_CODE = re.compile(r"^( *)(```|~~~).*?^\1\2", re.MULTILINE | re.DOTALL)
_DELIMITER = re.compile(r"\| *:?-+:? *(\| *:?-+:? *)*\|")
_BORDER = re.compile(r"(?<!\\)\|")


def problems_of_tables(text: str) -> list[str]:
    """What a reader would not see as the table that was meant, a line each."""
    lines = _CODE.sub(lambda code: "\n" * code[0].count("\n"), text).splitlines()
    found = []
    columns = 0
    for number, line in enumerate(lines, 1):
        if not line.lstrip().startswith("|"):
            if columns and line.strip():
                found.append(f"line {number}: text right behind a table would be a row of it")
            columns = 0
        elif not columns:
            columns = _columns(line)
            if number == len(lines) or not _DELIMITER.fullmatch(lines[number].strip()):
                found.append(f"line {number}: the first row of a table, and no |---| below it")
        elif _columns(line) != columns:
            found.append(f"line {number}: {_columns(line)} columns in a table of {columns}")
    return found


def _columns(row: str) -> int:
    return len(_BORDER.findall(row)) - 1


@pytest.mark.parametrize("name", documents())
def test_tables_of_a_document(name: str) -> None:
    """Each is one block with a header, and nothing is cut off."""
    assert problems_of_tables((ROOT / name).read_text()) == []


HEAD = "| a | b |\n|---|:-:|\n"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"{HEAD}| 1 | 2 |\n\ntext\n", []),
        (f"{HEAD}| 1 | `x\\|y` |\n", []),
        (f"```\n| 1 | 2 |\n```\n{HEAD}", []),
        (f"- item\n\n  ```\n  | 1 | 2 |\n  ```\n\n{HEAD}", []),
        (f"{HEAD}\n| 1 | 2 |\n", ["line 4: the first row of a table, and no |---| below it"]),
        (f"{HEAD}| 1 | 2 |\n\n| 3 | 4 |\n| 5 | 6 |\n", ["line 5: the first row of a table, and no |---| below it"]),
        (f"{HEAD}| 1 |\n", ["line 3: 1 columns in a table of 2"]),
        (f"{HEAD}| 1 | `x|y` |\n", ["line 3: 3 columns in a table of 2"]),
        (f"{HEAD}| 1 | 2 |\ntext\n", ["line 4: text right behind a table would be a row of it"]),
    ],
    ids=[
        "whole",
        "escaped border",
        "in code",
        "in code of a list",
        "blank line below the header",
        "blank line between rows",
        "too few columns",
        "border that is not escaped",
        "no blank line behind",
    ],
)
def test_what_the_check_finds(text: str, expected: list[str]) -> None:
    """Broken tables, at their line; code is no table."""
    assert problems_of_tables(text) == expected
