"""The fonts of this machine by fontconfig, and characters that none of them has.

Most documents of the cloud's users are in Chinese. LibreOffice looks for a character in all fonts of the machine before
it draws an empty box.
"""

import shutil
import subprocess
import unicodedata
from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

SECONDS = 10.0
MOST_NAMED = 10
"""Characters that a warning names; further ones are counted."""

_CJK_SAMPLE = "中漢カ한"
_CJK_NAMES = ("CJK", "KANGXI", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC", "FULLWIDTH", "HALFWIDTH")
_RARE_IDEOGRAPHS, _EMOJI = 0x20000, 0x1F000
_NEVER_DRAWN = frozenset({0x34F, 0x115F, 0x1160, 0x3164, 0xFFA0, *range(0xFE00, 0xFE10), *range(0xE0100, 0xE01F0)})


@dataclass(frozen=True, slots=True)
class Fonts:
    """The number of families, and the ranges of code points that they have, in order."""

    families: int
    ranges: tuple[tuple[int, int], ...]

    @property
    def has_cjk(self) -> bool:
        """Whether they have Chinese, Japanese and Korean."""
        return not self.missing(_CJK_SAMPLE)

    def missing(self, text: Iterable[str]) -> list[str]:
        """The characters that no font has, in order; not those that are never drawn, or are of private use."""
        return sorted(character for character in set(text) if _is_drawn(character) and not self.has(character))

    def has(self, character: str) -> bool:
        """Whether one of them has it."""
        code = ord(character)
        found = bisect_right(self.ranges, (code, code)) - 1
        return any(first <= code <= last for first, last in self.ranges[max(found, 0) : found + 2])


def installed() -> Fonts | None:
    """The fonts; None: there is no `fc-list` to ask, or it does not answer."""
    program = shutil.which("fc-list")
    if program is None:
        return None
    command = [program, "--format", "%{family[0]}\t%{charset}\n"]
    try:
        listed = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS, check=False)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    fonts = [line.partition("\t") for line in listed.stdout.splitlines()]
    return Fonts(len({family for family, _, _ in fonts}), _merged(charset for _, _, charset in fonts))


def missing_glyphs(text: Iterable[str], fonts: Fonts | None) -> str:
    """A warning that names characters that no font has, and what to install; empty: all have one, or nobody knows."""
    missing = [] if fonts is None else fonts.missing(text)
    return _no_font_has(missing) if missing else ""


def undrawn_letters(missing: Iterable[str], fonts: Fonts | None) -> list[str]:
    """Warnings that name characters which the one font of a text does not have: those that no font has, and others."""
    characters = sorted(set(missing))
    nowhere = [each for each in characters if fonts is not None and not fonts.has(each)]
    elsewhere = [each for each in characters if each not in nowhere]
    found = [_no_font_has(nowhere)] if nowhere else []
    if elsewhere:
        found.append(f"A watermark's text is drawn in one font, which does not have {_listed(elsewhere)}.")
    return found


def _no_font_has(missing: list[str]) -> str:
    packages = " ".join(dict.fromkeys(_package(character) for character in missing if _is_drawn(character)))
    hint = f": install {packages} (Debian)" if packages else ""
    return f"No font of this machine has {_listed(missing)}{hint}."


def _listed(characters: list[str]) -> str:
    named = [_named(character) for character in characters[:MOST_NAMED]]
    more = [f"{len(characters) - MOST_NAMED} others"] if len(characters) > MOST_NAMED else []
    *first, last = [*named, *more]
    return f"{', '.join(first)} and {last}" if first else last


def _named(character: str) -> str:
    """A character with its number; one that cannot be seen, or must not be in XML, is only a number."""
    number = f"U+{ord(character):04X}"
    return f"{character} ({number})" if character.isprintable() else number


def _is_drawn(character: str) -> bool:
    return unicodedata.category(character)[0] in "LMNPS" and ord(character) not in _NEVER_DRAWN


def _package(character: str) -> str:
    """The package of Debian whose fonts have a character of this kind."""
    if unicodedata.name(character, "").startswith(_CJK_NAMES):
        return "fonts-hanazono" if ord(character) >= _RARE_IDEOGRAPHS else "fonts-noto-cjk"
    is_emoji = unicodedata.category(character) == "So" and ord(character) >= _EMOJI
    return "fonts-symbola" if is_emoji else "fonts-noto-core"


def _merged(charsets: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """Ranges such as `20-7e a0`, of all fonts, in order and without overlap."""
    ranges = set[tuple[int, int]]()
    for word in {word for charset in set(charsets) for word in charset.split()}:
        first, _, last = word.partition("-")
        ranges.add((int(first, 16), int(last or first, 16)))
    merged: list[tuple[int, int]] = []
    for first_code, last_code in sorted(ranges):
        if merged and first_code <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(merged[-1][1], last_code)
        else:
            merged.append((first_code, last_code))
    return tuple(merged)
