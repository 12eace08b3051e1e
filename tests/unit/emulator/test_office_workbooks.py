"""Which sheets of a workbook have pages, and which pages, through the real LibreOffice."""

from itertools import pairwise
from typing import Any

import pytest

from docpreview_emulator import Emulator
from docpreview_emulator.office_report import warnings

from .cloud_client import Cloud
from .office_files import FILLED, FRAMED, workbook
from .office_jobs import coloured, converted, heights, needs_office, words
from .test_rendering import image, targets

pytestmark = needs_office

TEMPLATE = "o/${SheetID}/${Number}.png"
LENGTHS = workbook({"Short": [["a"]], "Long": [[f"row {number}"] for number in range(120)], "Shorter": [["b"]]})
PAINTED = workbook({"Filled": [[FILLED] * 3] * 5, "Blank": [], "Framed": [[FRAMED] * 3] * 5})


async def test_a_sheet_of_colours_and_borders_without_text_has_a_page(emulator: Emulator, cloud: Cloud) -> None:
    """A sheet with nothing to see has none."""
    job = await converted(emulator, cloud, "plan.xlsx", PAINTED, TEMPLATE, TgtType="png")
    assert targets(job) == ["o/1/1.png", "o/3/1.png"]
    filled, framed = (image(emulator, key).convert("RGB") for key in targets(job))
    box = coloured(filled)
    assert box is not None
    assert filled.getpixel(((box[0] + box[2]) // 2, (box[1] + box[3]) // 2)) == (255, 0, 0)
    assert coloured(framed) is None
    assert framed.convert("L").getextrema() == (0, 255), "black borders"


async def test_cells_with_colours_and_borders_keep_what_is_in_them(emulator: Emulator, cloud: Cloud) -> None:
    """Also beside a sheet without text, in which blanks are written so that it has a page."""
    rows = [[f"{FILLED}r{row}c{column}" for column in range(5)] for row in range(24)]
    numbers = [[f"{FRAMED}100"] for _ in range(12)]
    book = workbook({"Table": [*rows, *numbers, ["=SUM(A25:A36)"]], "Blank": [[FILLED] * 3]})
    shown = await words(emulator, cloud, "table.xlsx", book)
    assert shown == [*(text.removeprefix(FILLED) for row in rows for text in row), *["100"] * 12, "1200"]


async def test_a_table_of_a_web_page_has_all_its_rows_and_nothing_else(emulator: Emulator, cloud: Cloud) -> None:
    """Many programs export such files as `.xls`. LibreOffice alone adds a header and a footer."""
    rows = "".join(f"<tr><td>name{number}</td><td>{number * 3}</td></tr>" for number in range(30))
    shown = await words(emulator, cloud, "export.xls", f"<html><table border=1>{rows}</table></html>".encode())
    assert shown == [text for number in range(30) for text in (f"name{number}", str(number * 3))]


async def test_a_hidden_sheet_has_no_pages_and_the_others_keep_their_numbers(emulator: Emulator, cloud: Cloud) -> None:
    book = workbook({"First": [["a"]], "Hidden": [["b"]], "Third": [["c"]]}, hidden=["Hidden"])
    job = await converted(emulator, cloud, "book.xlsx", book, TEMPLATE, TgtType="png")
    assert targets(job) == ["o/1/1.png", "o/3/1.png"]
    assert job.result is not None
    assert job.result.total_sheets == 3
    assert job.message == "Hidden, and without pages: 1 sheet."
    asked = await converted(emulator, cloud, "book.xlsx", book, TEMPLATE, TgtType="png", SheetId=2)
    message = "Sheet 2 is hidden: hidden sheets are not converted."
    assert (asked.state, asked.code, asked.message) == ("Failed", "-3015", message)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"StartPage": 2, "EndPage": 3}, ["2/1", "2/2"]),
        ({"PageRanges": "1,3"}, ["1/1", "2/1", "2/3", "3/1"]),
    ],
)
async def test_pages_beyond_a_short_sheet_are_those_of_the_longer_ones(
    emulator: Emulator, cloud: Cloud, options: dict[str, Any], expected: list[str]
) -> None:
    """Pages count within each sheet; the second one has three."""
    job = await converted(emulator, cloud, "book.xlsx", LENGTHS, "${SheetID}/${Number}", **options)
    assert (job.code, targets(job)) == ("Success", expected)
    assert job.result is not None
    assert (job.result.total_pages, job.result.failed_pages) == (5, 0)


@pytest.mark.parametrize("options", [{"StartPage": 4}, {"SheetId": 1, "StartPage": 2}])
async def test_pages_beyond_every_sheet_fail_the_job(emulator: Emulator, cloud: Cloud, options: dict[str, Any]) -> None:
    """The message says how many pages there are."""
    job = await converted(emulator, cloud, "book.xlsx", LENGTHS, "${SheetID}/${Number}", **options)
    longest = 1 if "SheetId" in options else 3
    message = f"No sheet has the selected pages: the longest one has {longest}."
    assert (job.state, job.code, job.message) == ("Failed", "-3015", message)


async def test_a_workbook_with_nothing_in_it_is_empty(emulator: Emulator, cloud: Cloud) -> None:
    for name, book in (("blank.xlsx", workbook({"Blank": []})), ("blank.csv", b"\n\n")):
        job = await converted(emulator, cloud, name, book, TEMPLATE)
        message = "The document is empty: no sheet that is shown has anything in it."
        assert (job.state, job.code, job.message) == ("Failed", "-3008", message)


async def test_a_job_of_one_empty_sheet_beside_a_full_one_fails_and_says_which_is_empty(
    emulator: Emulator, cloud: Cloud
) -> None:
    book = workbook({"Full": [["a"]], "Blank": []})
    job = await converted(emulator, cloud, "book.xlsx", book, TEMPLATE, SheetId=2)
    assert (job.state, job.code, job.message) == ("Failed", "-3008", "Sheet 2 is empty: it has no pages.")


LINES = "first line\nsecond line\nthird line"
TABLE = [["above"], [LINES], ["below"]]


@pytest.mark.parametrize(
    ("key", "data"),
    [
        ("notes.csv", f'above\n"{LINES}"\nbelow\n'.encode()),
        ("notes.xlsx", workbook({"Notes": TABLE})),
    ],
)
async def test_a_row_without_a_stored_height_is_as_high_as_the_lines_of_its_text(
    emulator: Emulator, cloud: Cloud, key: str, data: bytes
) -> None:
    """No line is drawn over another, and none is missing."""
    placed = await heights(emulator, cloud, key, data, ["above", *LINES.split("\n"), "below"])
    assert all(bottom > top for (bottom, _), (_, top) in pairwise(placed)), placed


async def test_a_row_whose_height_the_author_has_set_and_a_hidden_one_stay_so(emulator: Emulator, cloud: Cloud) -> None:
    attributes = {2: 'ht="15" customHeight="1"', 3: 'hidden="1"'}
    book = workbook({"Notes": [["above"], [LINES], ["hidden\nrow"], ["below"]]}, row_attributes=attributes)
    (above, _), (below, _) = await heights(emulator, cloud, "notes.xlsx", book, ["above", "below"])
    assert 25 < above - below < 32, "two rows, one of them of 15 points"
    assert "hidden" not in await words(emulator, cloud, "notes.xlsx", book)


ADVICE = "A larger PaperSize shows more."


@pytest.mark.parametrize(
    ("book", "message"),
    [
        (
            workbook({"Notes": [["a", "b"]]}, width=160),
            "Wider than the paper, and cut at its edge: column A of sheet 1.",
        ),
        (
            workbook({"First": [["a"]], "Notes": [["a"], ["line\n" * 119]]}),
            "Higher than a page, and cut at its end: row 2 of sheet 2.",
        ),
    ],
)
async def test_a_column_or_row_that_is_larger_than_a_page_is_named_in_the_message_of_the_job(
    emulator: Emulator, cloud: Cloud, book: bytes, message: str
) -> None:
    """On larger paper it fits."""
    job = await converted(emulator, cloud, "notes.xlsx", book, TEMPLATE)
    assert (job.state, job.message) == ("Success", f"{message} {ADVICE}")
    large = await converted(emulator, cloud, "notes.xlsx", book, TEMPLATE, PaperSize=2)
    assert (large.state, large.message) == ("Success", "")


def test_the_first_ten_columns_that_are_cut_are_named_and_the_others_are_counted() -> None:
    found = warnings(["sheets 1", *(f"wide 1 {column}" for column in (26, 27, 703, *range(4, 15))), "sheet 1", ""])
    columns = ["Z", "AA", "AAA", *"DEFGHIJ"]
    named = ", ".join(f"column {column} of sheet 1" for column in columns)
    assert found == [f"Wider than the paper, and cut at its edge: {named} and 4 more. {ADVICE}"]
