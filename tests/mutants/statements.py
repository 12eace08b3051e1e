"""Mutants of statements in other languages: comparisons, sums, conditions and lines of SQL and of Lua.

Each function takes a text and gives pairs of a description and the changed text. What is no statement gives none.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

SQL = re.compile(r"^\s*(SELECT|INSERT|UPDATE|DELETE|CREATE|WHERE|AND|DO UPDATE)\b")
SQL_WORDS = {
    " <= ": (" < ", " > "),
    " >= ": (" > ", " < "),
    " > ": (" >= ",),
    " != ": (" = ",),
    " + ": (" - ",),
    " - ": (" + ",),
    " AND ": (" OR ",),
    "max(": ("min(",),
    "OR REPLACE": ("OR IGNORE",),
    "OR IGNORE": ("OR REPLACE",),
    "ORDER BY look_at": ("ORDER BY look_at DESC",),
}
LUA_WORDS = {
    "==": ("~=",),
    "~=": ("==",),
    "<=": ("<", ">"),
    ">=": (">", "<"),
    " > ": (" >= ", " <= "),
    " < ": (" <= ", " >= "),
    " + ": (" - ",),
    " - ": (" + ",),
    " and ": (" or ",),
    " or ": (" and ",),
    "not ": ("",),
    "math.max": ("math.min",),
    "math.min": ("math.max",),
    " true": (" false",),
    " false": (" true",),
    "= 0": ("= 1",),
}
LUA_ALONE = re.compile(
    r"^\s*(redis\.call|changed\(|write_|count_pages|add\(|postpone|table\.insert|index_|unindex_|"
    r"(if|for|elseif) .* end$|\w+(\[.*\])? = )"
)
"""Lines that can go without breaking what stands around them."""


def sql(text: str) -> Iterator[tuple[str, str]]:
    """Mutants of a statement of SQL, or of a part of one."""
    if not SQL.match(text) or text.lstrip().startswith("CREATE"):
        return
    if "WHERE " in text:
        start = text.index("WHERE ")
        for found in re.finditer(r" = ", text[start:]):
            at = start + found.start()
            yield _described(text, text[:at] + " != " + text[at + 3 :])
    for found in re.finditer(r" AND [a-z_:]+ (=|!=|<=|>=|>) ('[a-z]*'|[?:a-z_]+)", text):
        yield (
            _described(text, text[: found.start()] + text[found.end() :])
            if "?" not in found[0]
            else (
                f"`{text.strip()}` without`{found[0]}`",
                text[: found.start()] + found[0].replace(" AND ", " AND (1 OR ", 1) + ")" + text[found.end() :],
            )
        )
    yield from (_described(text, new) for new in _replaced(text, SQL_WORDS))


def lua(text: str) -> Iterator[tuple[str, str]]:
    """Mutants of a part of a script, line by line."""
    if "redis.call" not in text and "\nlocal " not in text and "end\n" not in text:
        return
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if not line.strip() or line.lstrip().startswith("--"):
            continue
        for new in (*_replaced(line, LUA_WORDS), *([""] if LUA_ALONE.match(line) and _is_balanced(line) else [])):
            description = f"`{line.strip()}` -> `{new.strip()}`" if new else f"drop `{line.strip()}`"
            yield description, "\n".join([*lines[:number], new, *lines[number + 1 :]])


def _described(old: str, new: str) -> tuple[str, str]:
    return f"`{old.strip()}` -> `{new.strip()}`", new


def _replaced(text: str, words: dict[str, tuple[str, ...]]) -> Iterator[str]:
    """The text with one word replaced at one place."""
    for word, others in words.items():
        for found in re.finditer(re.escape(word), text):
            for other in others:
                yield text[: found.start()] + other + text[found.end() :]


def _is_balanced(line: str) -> bool:
    opened = len(re.findall(r"\b(if|for|function|repeat)\b", line))
    return (
        line.count("(") == line.count(")")
        and line.count("{") == line.count("}")
        and opened == len(re.findall(r"\bend\b", line))
    )
