"""Templates of result names, and the placeholders that source formats require (vendor document 460/46942)."""

from __future__ import annotations

import re

SPREADSHEETS = frozenset({"csv", "et", "ets", "ett", "xls", "xlsb", "xlsm", "xlsx", "xlt", "xltm", "xltx"})
"""Suffixes of spreadsheets, whose results need `${SheetID}` in their path."""

_SUFFIX = re.compile(r"[a-z0-9]{1,10}", re.ASCII)


def source_format(key: str, declared: str) -> str:
    """The source's format: the suffix of its key, else `declared`, which may be empty."""
    stem, dot, suffix = key.rpartition("/")[2].rpartition(".")
    suffix = suffix.lower()
    return suffix if stem and dot and _SUFFIX.fullmatch(suffix) else declared


def template_problem(template: str, source: str) -> str | None:
    """What a template lacks for a source of this format; None: nothing.

    The vendor requires `${Number}` for spreadsheets, but its own samples succeed with `${Page}`; both are accepted.
    """
    name = template.rpartition("/")[2]
    if "${Number}" not in name and "${Page}" not in name:
        return "must have ${Number} or ${Page} in its last part, such as previews/page-${Number}.jpg"
    if source in SPREADSHEETS and "${SheetID}" not in template:
        return "must have ${SheetID} in its path because the source is a spreadsheet"
    return None
