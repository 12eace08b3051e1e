"""What separates the fields of a CSV file: spreadsheets of different countries write different ones."""

import csv
from itertools import islice

_SEPARATORS = "\t;,|"
"""In the order in which they are tried: fields with decimal commas are more common than those with semicolons."""

_USUAL = ","
_SAMPLE_CHARACTERS = 64 * 1024
_SAMPLE_ROWS = 50
_DECLARED = "sep="


def separator(text: str) -> tuple[str, str]:
    """The separator of a text, and the text without a first line that declares it, as Excel writes it (`sep=;`)."""
    first, _, rest = text.partition("\n")
    declared = first.rstrip("\r")
    if declared.lower().startswith(_DECLARED) and len(declared) == len(_DECLARED) + 1:
        return declared[-1], rest
    found = {candidate: _evenness(text, candidate) for candidate in _SEPARATORS}
    return max(found, key=lambda candidate: found[candidate]) if any(found.values()) else _USUAL, text


def _evenness(text: str, candidate: str) -> float:
    """The part of the rows that have the most common number of fields; 0, when that is one."""
    lines = text[:_SAMPLE_CHARACTERS].splitlines(keepends=True)
    try:
        counts = [len(row) for row in islice(csv.reader(lines, delimiter=candidate), _SAMPLE_ROWS) if row]
    except csv.Error:  # a field that is too long
        return 0.0
    usual = max(set(counts), key=counts.count, default=1)
    return counts.count(usual) / len(counts) if usual > 1 else 0.0
