"""Encodings of plain texts, and what separates the fields of CSV files, through the real LibreOffice."""

import pytest

from docpreview_emulator import Emulator
from docpreview_emulator.csv_files import separator

from .cloud_client import Cloud
from .office_files import reviewed_open_document
from .office_jobs import converted, needs_office, words

CHINESE, WESTERN = "中文文本的预览", "élan café naïve Straße £5 “quoted”"


@needs_office
@pytest.mark.parametrize(
    ("key", "text", "encoding"),
    [
        ("western.txt", WESTERN, "cp1252"),
        ("chinese.txt", CHINESE, "gb18030"),
        ("marked.log", CHINESE, "utf-16"),
        ("western.csv", WESTERN, "cp1252"),
    ],
)
async def test_a_text_of_each_encoding_has_its_own_letters_on_its_page(
    emulator: Emulator, cloud: Cloud, key: str, text: str, encoding: str
) -> None:
    assert await words(emulator, cloud, key, text.encode(encoding)) == text.split()


@needs_office
@pytest.mark.parametrize(
    ("encoding", "message"),
    [
        ("utf-8", ""),
        ("cp1252", "Read as Windows-1252, because it is not UTF-8."),
        ("gb18030", "Read as GB 18030, because it is not UTF-8."),
    ],
)
async def test_a_text_whose_encoding_was_guessed_says_so_in_the_message_of_its_job(
    emulator: Emulator, cloud: Cloud, encoding: str, message: str
) -> None:
    """Another one would be read as one of these."""
    text = CHINESE if encoding == "gb18030" else WESTERN
    job = await converted(emulator, cloud, "notes.txt", text.encode(encoding), "o/${Number}")
    assert (job.state, job.message) == ("Success", message)


@needs_office
@pytest.mark.parametrize("divider", [";", "\t"])
async def test_the_fields_of_a_csv_file_are_cells_whatever_separates_them(
    emulator: Emulator, cloud: Cloud, divider: str
) -> None:
    """Quotes around a field with the separator go too."""
    rows = [["name", "city"], ["José", f'"Zürich{divider}8001"'], ["Li", "Basel"]]
    text = "\r\n".join(divider.join(row) for row in rows)
    shown = "".join(await words(emulator, cloud, "table.csv", text.encode("latin-1")))
    assert shown == f"namecityJoséZürich{divider}8001LiBasel".replace("\t", "")


@needs_office
@pytest.mark.parametrize(("comments", "place"), [(1, 0), (0, 4)])
async def test_notes_of_an_open_document_are_shown_as_the_job_says_whatever_the_document_says_of_prints(
    emulator: Emulator, cloud: Cloud, comments: int, place: int
) -> None:
    shown = await words(emulator, cloud, "review.docx", reviewed_open_document(place), Comments=comments)
    assert "euros" in shown
    assert ("REMARK" in shown) == bool(comments)


@needs_office
async def test_a_date_below_a_formula_in_a_csv_file_has_a_column_that_is_wide_enough(
    emulator: Emulator, cloud: Cloud
) -> None:
    """Cells that are too narrow have crosses in place of their value."""
    rows = b'when\n=HYPERLINK("http://a")\n2026-01-02\n2026-01-02 10:11:12\n'
    shown = await words(emulator, cloud, "dates.csv", rows)
    assert shown == ["when", "http://a", "2026-01-02", "2026-01-02", "10:11:12"]


@needs_office
async def test_a_column_of_long_texts_in_a_csv_file_has_lines_beside_the_other_columns(
    emulator: Emulator, cloud: Cloud
) -> None:
    """Where it was one line, the paper cut it."""
    numbers = [f"w{number}" for number in range(200)]
    shown = await words(emulator, cloud, "notes.csv", f"id,note,who\n1,{' '.join(numbers)},Ann\n".encode())
    assert set(shown) >= {"id", "note", "who", *numbers, "Ann"}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a;b\n1,5;2,5\n3,5;4,5\n", ";"),
        ("a,b\nx;y,z\nv,w\n", ","),
        ("a\tb\n1,5\t2;5\n", "\t"),
        ("a\nb\n", ","),
        ("", ","),
        ('"a;b",c\n"d;e",f\n', ","),
        ("\n\na;b;c\nd;e;f\ng;h;i\nj;k\n", ";"),
    ],
)
def test_the_separator_is_the_one_that_makes_rows_of_one_length(text: str, expected: str) -> None:
    """Fields with decimal commas do not make it a comma."""
    assert separator(text) == (expected, text)


def test_a_first_line_that_declares_the_separator_is_no_row() -> None:
    """As Excel writes it."""
    assert separator("sep=;\r\na,b;c\r\n") == (";", "a,b;c\r\n")
