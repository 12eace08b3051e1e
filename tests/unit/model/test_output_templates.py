"""Templates of result names, and formats of sources."""

import pytest

from docpreview_gateway.model.output_templates import SPREADSHEETS, result_keys, source_format, template_problem


@pytest.mark.parametrize(
    ("key", "declared", "expected"),
    [
        ("a.pptx", "", "pptx"),
        ("a.PPTX", "", "pptx"),
        ("a.pptx", "xlsx", "pptx"),
        ("a.b/c", "docx", "docx"),
        ("a.b/c.d", "", "d"),
        ("c", "", ""),
        ("c.", "txt", "txt"),
        (".bashrc", "", ""),
        ("c.t-t", "txt", "txt"),
        ("c.üü", "", ""),
        ("c.abcdefghijk", "", ""),
        ("", "xls", "xls"),
    ],
)
def test_the_format_is_the_keys_suffix_or_the_declared_one(key: str, declared: str, expected: str) -> None:
    """The declared format counts only for keys without a suffix."""
    assert source_format(key, declared) == expected


@pytest.mark.parametrize("template", ["abc_${Number}.jpg", "/a/${Page}", "${SheetID}/${Number}", "a/x${Page}y.png"])
def test_a_template_with_a_number_or_page_in_its_last_part_is_valid(template: str) -> None:
    """One of the two is enough."""
    assert template_problem(template, "pptx") is None


@pytest.mark.parametrize(
    "template", ["abc.jpg", "", "${Number}/abc.jpg", "${number}", "$Number", "${Page", "a${Page}/"]
)
def test_a_template_without_a_number_is_invalid(template: str) -> None:
    """The results would overwrite each other."""
    assert "${Number} or ${Page}" in str(template_problem(template, "pptx"))


@pytest.mark.parametrize("source", sorted(SPREADSHEETS))
def test_spreadsheets_need_the_sheet_in_the_path(source: str) -> None:
    """For every spreadsheet format; the vendor's own sample has ${Page} beside it."""
    assert "${SheetID}" in str(template_problem("abc_${Number}.jpg", source))
    assert template_problem("${SheetID}/abc_${Number}.jpg", source) is None
    assert template_problem("mark/${SheetID}/pic-${Page}.jpg", source) is None


def test_a_sheet_placeholder_in_another_spelling_is_invalid() -> None:
    """The vendor's placeholder ends in capitals."""
    assert template_problem("${SheetId}/${Number}", "xlsx") is not None


@pytest.mark.parametrize(
    ("template", "key", "made"),
    [
        ("/a/p_${Number}.jpg", "a/p_1.jpg", True),
        ("a/p_${Number}.jpg", "/a/p_1.jpg", False),
        ("//a/${Page}", "/a/1", True),
        ("a/${SheetID}/${Number}-${Page}", "a/1/2-3", True),
        ("a/${SheetID}/${SheetID}", "a/12/12", True),
        ("a/${SheetID}/${SheetID}", "a/12/1", False),
        ("a/${sheetid}/${InputName}", "a/${sheetid}/${InputName}", True),
        ("a/${sheetid}/${InputName}", "a/1/2", False),
        ("a.b/(x)[0]*${Page}", "a.b/(x)[0]*7", True),
        ("a.b/${Page}", "axb/7", False),
        ("${Page}", "12345678901", False),
        ("${Page}", "1\n", False),
        ("${Page}", "", False),
        ("", "a", False),
    ],
)
def test_a_template_makes_keys_with_numbers_for_its_variables_only(template: str, key: str, *, made: bool) -> None:
    """The vendor's three variables; everything else is taken as it stands."""
    assert (result_keys(template).fullmatch(key) is not None) is made


@pytest.mark.parametrize("suffix", ["csv", "et", "ets", "ett", "xls", "xlsb", "xlsm", "xlsx", "xlt", "xltm", "xltx"])
def test_results_of_every_format_of_spreadsheets_need_the_sheet_in_their_path(suffix: str) -> None:
    """The vendor's list (document 460/46942)."""
    assert template_problem("p/${Number}.jpg", suffix) is not None
    assert template_problem("p/${SheetID}/${Number}.jpg", suffix) is None
