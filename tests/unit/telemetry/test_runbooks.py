"""The runbooks that are shipped with the gateway."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from docpreview_gateway.telemetry.runbooks import INDEX, Runbooks

FOLDER = Path(__file__).parents[3] / "docs" / "runbooks"


def test_in_a_checkout_the_runbooks_are_those_of_the_documents() -> None:
    assert Runbooks().names == {path.name for path in FOLDER.glob("*.md")}
    assert INDEX in Runbooks().names


@pytest.mark.parametrize("name", sorted(path.name for path in FOLDER.glob("*.md")))
def test_every_runbook_has_a_title_and_no_link_to_what_is_not_shipped(name: str) -> None:
    """Other documents are named by their files."""
    runbooks = Runbooks()
    found = runbooks.html(name)
    assert found is not None
    title, html = found
    assert title == (FOLDER / name).read_text().splitlines()[0].removeprefix("# ")
    assert f"<h1>{title}</h1>" in html
    links = re.findall(r'href="([^"]*)"', html)
    assert {link.partition("#")[0] for link in links if "://" not in link} <= runbooks.names
    for document in re.findall(r"\]\(\.\./([^)]*)\)", (FOLDER / name).read_text()):
        assert f"(docs/{document})" in html
    assert "&lt;!--" not in html, "marks for the tests of documents are not for readers"


@pytest.mark.parametrize("name", ["", "nothing.md", "../metrics.md", "/etc/passwd", "breaker-open"])
def test_nothing_else_can_be_read(name: str) -> None:
    assert Runbooks().html(name) is None


def test_markup_in_a_runbook_is_shown_as_text(tmp_path: Path) -> None:
    (tmp_path / "a.md").write_text("# A <b>\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1))\n\n`<i>`\n")
    found = Runbooks(tmp_path).html("a.md")
    assert found is not None
    assert not re.search(r"<script|<b>|<i>|href", found[1])


def test_without_the_files_there_are_no_runbooks(tmp_path: Path) -> None:
    """Of an installation that left them out."""
    assert Runbooks(tmp_path / "missing").names == frozenset()
    assert Runbooks(tmp_path / "missing").html(INDEX) is None
