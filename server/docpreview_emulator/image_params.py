"""Parser of `ImageParams`: operations of the vendor's image processing, separated by `|`, in the order of their use.

Understood are thumbnails and qualities of `imageMogr2` (vendor documents 1045/33713 and 1045/33717) and watermarks with
an image or a text (1045/33720 and 1045/33721). All others are named as ignored, with the reason.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import TypeVar

Size = tuple[int, int]
_T = TypeVar("_T", int, str)

GRAVITIES = (*("northwest", "north", "northeast"), *("west", "center", "east"), *("southwest", "south", "southeast"))
"""The nine places of a watermark, in rows from the upper left."""

_MOST_NAMES = 10
_NAME = re.compile(r"[A-Za-z0-9-]{1,20}")
_OTHER_WORDS = (
    "auto-orient strip crop cut scrop iradius rradius rotate flip format gravity interlace cgif blur sharpen bright"
    " contrast grayscale color pad minsize size-limit ignore-error width height"
)
"""Words of `imageMogr2` that begin a parameter, and so end the one before."""

_GREY = "#3D3D3D"
_PERCENT = re.compile(r"!([0-9]{1,4})p(x?)|!x([0-9]{1,4})p")
_BOX = re.compile(r"((?:!(?=.*r))?)([0-9]{0,5})x([0-9]{0,5})([!<>r]?)")
_AREA = re.compile(r"([0-9]{1,9})@")
_QUALITY = re.compile(r"[0-9]{1,3}!?")
_COLOUR = re.compile(r"#?[0-9A-Fa-f]{6}")

_BAD_VALUE, _UNKNOWN = "its value", "not modelled"
_IMAGES_ONLY, _JPG_ONLY, _TILED_ONLY = "jpg and png only", "jpg only", "with batch/1 only"
_CONTENTS = {"1": "image", "2": "text"}


@dataclass(frozen=True, slots=True)
class Thumbnail:
    """A change of size, e.g. `300x`."""

    geometry: str

    def size(self, size: Size) -> Size:
        """The size that an image of this size gets."""
        return _scaled(self.geometry, size) or size


@dataclass(frozen=True, slots=True)
class Mark:
    """A watermark: `text`, or the image at the address `image`."""

    image: str = ""
    text: str = ""
    gravity: str = "southeast"
    dx: int = 0
    dy: int = 0
    tiled: bool = False
    degree: int = 0
    opacity: int = 90
    font_size: int = 13
    colour: str = _GREY


@dataclass(slots=True)
class ImageParams:
    """The operations that are applied, and the names of the others with the reasons."""

    steps: list[Thumbnail | Mark] = field(default_factory=list)
    ignored: list[tuple[str, str]] = field(default_factory=list)
    qualities: list[Callable[[int], int]] = field(default_factory=list)

    @classmethod
    def read(cls, text: str, suffix: str) -> "ImageParams":
        """The operations for images with this suffix; those that other files cannot have are ignored."""
        found = cls()
        for part in filter(None, text.split("|")):
            name, *words = part.split("/")
            if suffix == "pdf":
                found.ignored.append((name, _IMAGES_ONLY))
            elif name == "imageMogr2":
                found._read_mogr(words, suffix)
            elif name == "watermark":
                found._read_mark(words)
            else:
                found.ignored.append((name, _UNKNOWN))
        return found

    def quality(self, wanted: int) -> int:
        """The quality of a JPEG that would else have the wanted one."""
        for change in self.qualities:
            wanted = min(max(change(wanted), 1), 100)
        return wanted

    @property
    def addresses(self) -> list[str]:
        """Addresses of the images of watermarks."""
        return [step.image for step in self.steps if isinstance(step, Mark) and step.image]

    @property
    def warnings(self) -> list[str]:
        """A warning that names what is ignored, and why, without the values."""
        names = list(dict.fromkeys(self.ignored))
        shown = ", ".join(f"{_shown(name)} ({reason})" for name, reason in names[:_MOST_NAMES])
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return [f"Ignored in ImageParams: {shown}{more}."] if names else []

    def _read_mogr(self, words: Sequence[str], suffix: str) -> None:
        for name, value in _parameters(words):
            if name == "thumbnail" and _scaled(value, (1000, 1000)):
                self.steps.append(Thumbnail(value))
            elif name in _QUALITIES and suffix == "jpg" and _is_quality(value):
                self.qualities.append(_QUALITIES[name](int(value.rstrip("!")), value.endswith("!")))
            else:
                self.ignored.append((f"imageMogr2/{name}", _mogr_reason(name, suffix)))

    def _read_mark(self, words: Sequence[str]) -> None:
        kind, values = "/".join(words[:1]), _Values(words[1:])
        name = _CONTENTS.get(kind)
        if name is None:
            self.ignored.append((f"watermark/{kind}", _UNKNOWN))
            return
        content = _decoded(values.left.pop(name, ""))
        if not content:
            self.ignored.append((f"watermark/{kind}", f"its {name}"))
            return
        tiled = values.number("batch", 0, 0, 1) == 1
        mark = Mark(
            image=content if kind == "1" else "",
            text=content if kind == "2" else "",
            gravity=values.gravity(),
            dx=values.number("dx", 0, 0, 9999),
            dy=values.number("dy", 0, 0, 9999),
            tiled=tiled,
            degree=values.number("degree", 0, 0, 360) if tiled else 0,
            opacity=values.number("dissolve", 90, 1, 100),
            font_size=values.number("fontsize", 13, 1, 9999) if kind == "2" else 0,
            colour=values.colour() if kind == "2" else "",
        )
        self.steps.append(mark)
        self.ignored += [(f"watermark/{name}", _BAD_VALUE) for name in values.bad]
        self.ignored += [(f"watermark/{name}", _TILED_ONLY if name == "degree" else _UNKNOWN) for name in values.left]


class _Values:
    """Parameters of a watermark, each of which is taken once; the names of those with bad values, and what is left."""

    def __init__(self, words: Sequence[str]) -> None:
        pairs = zip_longest(words[::2], words[1::2], fillvalue="")
        self.left = {name: value for name, value in pairs if name or value}
        self.bad: list[str] = []

    def number(self, name: str, default: int, least: int, most: int) -> int:
        text = self.left.pop(name, None)
        if text is None:
            return default
        number = int(text) if re.fullmatch(r"[0-9]{1,4}", text) else -1
        return number if least <= number <= most else self._default(name, default)

    def gravity(self) -> str:
        place = self.left.pop("gravity", "southeast").lower()
        return place if place in GRAVITIES else self._default("gravity", "southeast")

    def colour(self) -> str:
        text = self.left.pop("fill", None)
        if text is None:
            return _GREY
        colour = _decoded(text)
        return f"#{colour.removeprefix('#')}" if _COLOUR.fullmatch(colour) else self._default("fill", _GREY)

    def _default(self, name: str, default: _T) -> _T:
        self.bad.append(name)
        return default


def _least(value: int, forced: bool) -> Callable[[int], int]:  # noqa: FBT001 - as all of its kind
    return lambda quality: value if forced else min(quality, value)


_QUALITIES: dict[str, Callable[[int, bool], Callable[[int], int]]] = {
    "quality": _least,
    "rquality": lambda value, _: lambda quality: quality * value // 100,
    "lquality": lambda value, _: lambda quality: max(quality, value),
}
_WORDS = {"thumbnail", *_QUALITIES, *_OTHER_WORDS.split()}


def _is_quality(value: str) -> bool:
    return _QUALITY.fullmatch(value) is not None and int(value.rstrip("!")) <= 100  # noqa: PLR2004 - per cent


def _mogr_reason(name: str, suffix: str) -> str:
    """Why a parameter of `imageMogr2` is ignored."""
    if name in _QUALITIES and suffix != "jpg":
        return _JPG_ONLY
    return _BAD_VALUE if name == "thumbnail" or name in _QUALITIES else _UNKNOWN


def _parameters(words: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Names and values of an `imageMogr2`; a name may have several values, or none."""
    start = 0
    for end in range(1, len(words) + 1):
        if end == len(words) or words[end] in _WORDS:
            yield words[start], "/".join(words[start + 1 : end])
            start = end


def _scaled(geometry: str, size: Size) -> Size | None:
    """The size after a thumbnail; None: the geometry is none of the vendor's."""
    width, height = size
    if found := _PERCENT.fullmatch(geometry):
        percent = int(found[1] or found[3])
        across, down = (100 if found[3] else percent), (100 if found[2] else percent)
        return _sides(width * across / 100, height * down / 100) if percent else None
    if found := _AREA.fullmatch(geometry):
        factor = min(1.0, (int(found[1]) / (width * height)) ** 0.5)
        return _sides(width * factor, height * factor) if factor else None
    found = _BOX.fullmatch(geometry)
    return _boxed(size, found[1] + found[4], int(found[2] or 0), int(found[3] or 0)) if found else None


def _boxed(size: Size, kind: str, across: int, down: int) -> Size | None:
    """The size after `<across>x<down>` of a kind, where 0 is a side that is not given."""
    width, height = size
    factors = [side / old for side, old in ((across, width), (down, height)) if side]
    if kind not in {"", "!", "<", ">", "!r"} or not factors or (kind and len(factors) == 1):
        return None
    if kind == "!":
        return across, down
    factor = max(factors) if kind == "!r" else min(factors)
    if (kind == ">" and factor > 1) or (kind == "<" and factor < 1):
        factor = 1
    return _sides(width * factor, height * factor)


def _sides(width: float, height: float) -> Size:
    return max(1, round(width)), max(1, round(height))


def _decoded(text: str) -> str:
    """A text in URL-safe Base64, with or without its padding; empty: it is none."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return ""


def _shown(name: str) -> str:
    """A name for the message and the log: what is no word may be anything."""
    return "/".join(part if _NAME.fullmatch(part) else "?" for part in name.split("/"))
