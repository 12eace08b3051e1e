"""What `convert.bas` reports of a document that its pages do not show, as sentences for the job's message."""

from collections.abc import Iterable

MOST_NAMED = 10
"""Columns and rows that a warning names; further ones are counted."""

_ADVICE = "A larger PaperSize shows more."


def warnings(report: Iterable[str]) -> list[str]:
    """Sentences for the lines of a report; its other lines have none."""
    found: dict[str, list[list[int]]] = {}
    for line in filter(None, report):
        kind, *numbers = line.split()
        found.setdefault(kind, []).append([int(number) for number in numbers if number.isdigit()])
    sentences = []
    for kind, what in (("hidden-slides", "slide"), ("hidden-sheets", "sheet")):
        count = sum(number for (number,) in found.get(kind, ()))
        if count:
            sentences.append(f"Hidden, and without pages: {count} {what}{'s' if count > 1 else ''}.")
    links = sum(number for (number,) in found.get("links", ()))
    if links:
        sentences.append(f"Not followed: {links} link{'s' if links > 1 else ''} to pictures outside of the document.")
    columns = [f"column {_letters(column)} of sheet {sheet}" for sheet, column in found.get("wide", ())]
    if columns:
        sentences.append(f"Wider than the paper, and cut at its edge: {_named(columns)}. {_ADVICE}")
    rows = [f"row {row} of sheet {sheet}" for sheet, row in found.get("high", ())]
    if rows:
        sentences.append(f"Higher than a page, and cut at its end: {_named(rows)}. {_ADVICE}")
    return sentences


def _named(places: list[str]) -> str:
    more = len(places) - MOST_NAMED
    return f"{', '.join(places[:MOST_NAMED])}{f' and {more} more' if more > 0 else ''}"


def _letters(column: int) -> str:
    """The name of a column: 1 is A, 27 is AA."""
    name = ""
    while column:
        column, letter = divmod(column - 1, 26)
        name = chr(ord("A") + letter) + name
    return name
