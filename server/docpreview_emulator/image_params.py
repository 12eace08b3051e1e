"""Parser of `ImageParams`: operations of the vendor's image processing, separated by `|`, in the order of their use.

Understood are thumbnails and qualities of `imageMogr2` (vendor documents 1045/33713 and 1045/33717) and watermarks with
an image or a text (1045/33720 and 1045/33721). All others are named as ignored.
"""

import base64
import binascii
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

Size = tuple[int, int]

GRAVITIES = (*("northwest", "north", "northeast"), *("west", "center", "east"), *("southwest", "south", "southeast"))
"""The nine places of a watermark, in rows from the upper left."""

_MOST_NAMES = 10
_NAME = re.compile(r"[A-Za-z0-9-]{1,20}")
_OTHER_WORDS = (
    "auto-orient strip crop cut scrop iradius rradius rotate flip format gravity interlace cgif blur sharpen bright"
    " contrast grayscale color pad minsize size-limit ignore-error width height"
)
"""Words of `imageMogr2` that begin a parameter, and so end the one before."""

_PERCENT = re.compile(r"!([0-9]{1,4})p(x?)|!x([0-9]{1,4})p")
_BOX = re.compile(r"((?:!(?=.*r))?)([0-9]{0,5})x([0-9]{0,5})([!<>r]?)")
_AREA = re.compile(r"([0-9]{1,9})@")
_QUALITY = re.compile(r"[0-9]{1,3}!?")
_COLOUR = re.compile(r"#?[0-9A-Fa-f]{6}")


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
    colour: str = "#3D3D3D"


@dataclass(slots=True)
class ImageParams:
    """The operations that are applied, and the names of the others."""

    steps: list[Thumbnail | Mark] = field(default_factory=list)
    ignored: list[str] = field(default_factory=list)
    qualities: list[Callable[[int], int]] = field(default_factory=list)

    @classmethod
    def read(cls, text: str, suffix: str) -> "ImageParams":
        """The operations for images with this suffix; those that other files cannot have are ignored."""
        found = cls()
        for part in filter(None, text.split("|")):
            name, *words = part.split("/")
            if suffix == "pdf":
                found.ignored.append(name)
            elif name == "imageMogr2":
                found._read_mogr(words, suffix)
            elif name == "watermark":
                found._read_mark(words)
            else:
                found.ignored.append(name)
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
        """A warning that names what is ignored, without the values."""
        names = list(dict.fromkeys(self.ignored))
        shown = ", ".join(_shown(name) for name in names[:_MOST_NAMES])
        more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
        return [f"Ignored in ImageParams: {shown}{more}."] if names else []

    def _read_mogr(self, words: Sequence[str], suffix: str) -> None:
        for name, value in _parameters(words):
            if name == "thumbnail" and _scaled(value, (1000, 1000)):
                self.steps.append(Thumbnail(value))
            elif name in _QUALITIES and _QUALITY.fullmatch(value) and suffix == "jpg":
                self.qualities.append(_QUALITIES[name](int(value.rstrip("!")), value.endswith("!")))
            else:
                self.ignored.append(f"imageMogr2/{name}")

    def _read_mark(self, words: Sequence[str]) -> None:
        kind, values = "/".join(words[:1]), dict(zip(words[1::2], words[2::2], strict=False))
        content = _decoded(values.pop({"1": "image", "2": "text"}.get(kind, ""), ""))
        if not content:
            self.ignored.append(f"watermark/{kind}")
            return
        gravity = values.pop("gravity", "southeast").lower()
        tiled = values.pop("batch", "") == "1"
        colour = _decoded(values.pop("fill", "")) if kind == "2" else ""
        mark = Mark(
            image=content if kind == "1" else "",
            text=content if kind == "2" else "",
            gravity=gravity if gravity in GRAVITIES else "southeast",
            dx=_number(values.pop("dx", ""), 0),
            dy=_number(values.pop("dy", ""), 0),
            tiled=tiled,
            degree=_number(values.pop("degree", ""), 0) if tiled else 0,
            opacity=min(max(_number(values.pop("dissolve", ""), 90), 1), 100),
            font_size=max(_number(values.pop("fontsize", ""), 13), 1) if kind == "2" else 0,
            colour=f"#{colour.removeprefix('#')}" if _COLOUR.fullmatch(colour) else "#3D3D3D",
        )
        self.steps.append(mark)
        self.ignored += ["watermark/gravity"] if gravity not in GRAVITIES else []
        self.ignored += [f"watermark/{name}" for name in values]


def _least(value: int, forced: bool) -> Callable[[int], int]:  # noqa: FBT001 - as all of its kind
    return lambda quality: value if forced else min(quality, value)


_QUALITIES: dict[str, Callable[[int, bool], Callable[[int], int]]] = {
    "quality": _least,
    "rquality": lambda value, _: lambda quality: quality * value // 100,
    "lquality": lambda value, _: lambda quality: max(quality, value),
}
_WORDS = {"thumbnail", *_QUALITIES, *_OTHER_WORDS.split()}


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


def _number(text: str, default: int) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,4}", text) else default


def _decoded(text: str) -> str:
    """A text in URL-safe Base64, with or without its padding; empty: it is none."""
    try:
        return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
    except (binascii.Error, UnicodeError, ValueError):
        return ""


def _shown(name: str) -> str:
    """A name for the message and the log: what is no word may be anything."""
    return "/".join(part if _NAME.fullmatch(part) else "?" for part in name.split("/"))
