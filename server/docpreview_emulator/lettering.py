"""The text of a watermark as an image, in a font of the machine that has its characters."""

import functools
import shutil
import subprocess
import unicodedata
from collections.abc import Iterable

from PIL import Image, ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Colour = tuple[int, int, int, int]

_FONT_SECONDS = 10
_NO_CHARACTER = "\U0010ffff"
_CANVAS = ImageDraw.Draw(Image.new("RGBA", (1, 1)))
"""Measures texts."""


def text_image(text: str, size: int, colour: str, opacity: int) -> tuple[Image.Image, list[str]]:
    """The text on a transparent ground in lines `size` pixels high, and the characters that its font lacks."""
    text = _lines(text)
    font = _font(text, size)
    left, top, right, bottom = (round(edge) for edge in _CANVAS.textbbox((0, 0), text, font=font))
    image = Image.new("RGBA", (max(right - left, 1), max(bottom - top, 1)), (0, 0, 0, 0))
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    ink: Colour = (red, green, blue, round(255 * opacity / 100))
    ImageDraw.Draw(image).text((-left, -top), text, font=font, fill=ink)
    return image, _lacking(font, set(text))


def _lines(text: str) -> str:
    """The text with one kind of line break, and blanks for the other control characters, which no font can draw."""
    return "\n".join("".join(map(_drawable, line)) for line in text.splitlines())


def _drawable(character: str) -> str:
    return " " if unicodedata.category(character) == "Cc" else character


@functools.lru_cache(maxsize=16)
def _font(text: str, size: int) -> Font:
    """The machine's font for these characters; Pillow's own where there is none, or no fontconfig."""
    program = shutil.which("fc-match")
    if program is not None:
        characters = " ".join(f"{ord(character):x}" for character in sorted(set(text) - {"\n"}))
        command = (program, "--format=%{file}\n%{index}", f"sans:scalable=true:charset={characters}")
        found = subprocess.run(command, capture_output=True, text=True, timeout=_FONT_SECONDS, check=False)  # noqa: S603
        file, _, index = found.stdout.partition("\n")
        if file and index.isdigit():
            try:
                return ImageFont.truetype(file, size, index=int(index))
            except OSError:
                pass
    return ImageFont.load_default(size)


def _lacking(font: Font, characters: Iterable[str]) -> list[str]:
    missing = bytes(font.getmask(_NO_CHARACTER))
    return [each for each in characters if not each.isspace() and bytes(font.getmask(each)) == missing]
