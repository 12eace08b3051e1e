"""Templates of result names."""

import pytest

from docpreview_gateway.model.output_templates import SPREADSHEETS, source_format, template_problem


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
def test_format_of_a_source(key: str, declared: str, expected: str) -> None:
    """The suffix of the key decides; what the caller declared counts where there is none."""
    assert source_format(key, declared) == expected


@pytest.mark.parametrize("template", ["abc_${Number}.jpg", "/a/${Page}", "${SheetID}/${Number}", "a/x${Page}y.png"])
def test_template_for_pages(template: str) -> None:
    """A number or page in the last part is enough."""
    assert template_problem(template, "pptx") is None


@pytest.mark.parametrize(
    "template", ["abc.jpg", "", "${Number}/abc.jpg", "${number}", "$Number", "${Page", "a${Page}/"]
)
def test_template_without_a_number(template: str) -> None:
    """The results would overwrite each other."""
    assert "${Number} or ${Page}" in str(template_problem(template, "pptx"))


@pytest.mark.parametrize("source", sorted(SPREADSHEETS))
def test_template_for_sheets(source: str) -> None:
    """Every spreadsheet format needs the sheet in the path; the vendor's own sample has ${Page} beside it."""
    assert "${SheetID}" in str(template_problem("abc_${Number}.jpg", source))
    assert template_problem("${SheetID}/abc_${Number}.jpg", source) is None
    assert template_problem("mark/${SheetID}/pic-${Page}.jpg", source) is None


def test_sheet_in_another_spelling() -> None:
    """The vendor's placeholder ends in capitals."""
    assert template_problem("${SheetId}/${Number}", "xlsx") is not None
