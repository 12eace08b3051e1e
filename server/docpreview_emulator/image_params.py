"""`ImageParams`: operations of the vendor's image processing on page images, one after the other."""

import re

_WORD = re.compile(r"[A-Za-z0-9]{1,20}")


def ignored(text: str) -> list[str]:
    """A warning that names the operations that are not applied, without their values; none: there is none."""
    names = [name if _WORD.fullmatch(name := part.partition("/")[0]) else "?" for part in text.split("|") if text]
    return [f"ImageParams: {', '.join(dict.fromkeys(names))} ignored by the emulator."] if names else []
