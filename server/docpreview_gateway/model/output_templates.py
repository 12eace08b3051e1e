"""Templates of result names, and the placeholders that source formats require (vendor document 460/46942)."""

from __future__ import annotations

import re

VARIABLES = ("Number", "Page", "SheetID")
"""What the cloud replaces in a template by numbers; everything else is taken as it stands."""

SPREADSHEETS = frozenset({"csv", "et", "ets", "ett", "xls", "xlsb", "xlsm", "xlsx", "xlt", "xltm", "xltx"})
"""Suffixes of spreadsheets, whose results need `${SheetID}` in their path."""

_SUFFIX = re.compile(r"[a-z0-9]{1,10}", re.ASCII)
_VARIABLE = re.compile(r"\$\{(" + "|".join(VARIABLES) + r")\}")


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


def result_keys(template: str) -> re.Pattern[str]:
    """Matches the keys, without a leading slash, that a template can make, and no others: for `fullmatch`.

    A variable has the same number everywhere in one key. So there are at most three groups to try, however often a
    template repeats its variables.
    """
    pattern, seen = [], set[str]()
    for index, part in enumerate(_VARIABLE.split(template.removeprefix("/"))):
        if index % 2 == 0:
            pattern.append(re.escape(part))
        else:
            pattern.append(f"(?P={part})" if part in seen else f"(?P<{part}>[0-9]{{1,10}})")
            seen.add(part)
    return re.compile("".join(pattern))
