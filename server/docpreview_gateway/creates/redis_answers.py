"""Readers of what the scripts of the store of creates answer (`redis_scripts`). What they do not expect is an error."""

from __future__ import annotations

import math
import re
from datetime import date
from typing import TYPE_CHECKING, Any, NamedTuple

from docpreview_gateway.creates.pages import PageCount, Pages
from docpreview_gateway.creates.ports import Lease, SecretUse, StoreState
from docpreview_gateway.storage.redis_client import expect

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from docpreview_gateway.creates.ports import Outcome

_OUTCOMES: dict[bytes, Outcome] = {
    b"new": "new",
    b"known": "known",
    b"duplicate": "duplicate",
    b"occupied": "occupied",
    b"day": "day",
    b"month": "month",
    b"period": "period",
}


class Damaged(ValueError):  # noqa: N818 - what was found
    """A field of the key `name` (`c`, `p`, `d` or `m`) is not what a gateway has written."""

    def __init__(self, name: str, field: str, what: str) -> None:
        super().__init__(f"the field {field} is not {what}")
        self.name = name


def damage(error: BaseException | None, names: Sequence[str]) -> str:
    """What a failed command says of a damaged store, with the key; empty: something else failed."""
    if isinstance(error, Damaged):
        return f"{names['cpdm'.index(error.name)]}: {error}"
    found = re.search(r"DAMAGED\{(.*)\}", str(error), re.DOTALL)
    return found[1] if found else ""


class Answer(NamedTuple):
    """`rest` is what a script answers after its status, `seq` and all that was checked; `key` names what is wrong."""

    status: bytes
    seq: int = 0
    key: str = ""
    rest: Any = None


def checked(read: Callable[..., object], answer: Any) -> Answer:  # noqa: ANN401 - the server's answer
    """What a script has answered, with the rest as `read` makes it. ValueError or TypeError for anything else."""
    status, *rest = expect(list, answer)
    if status == b"lost" and not rest:
        return Answer(status)
    if status in {b"unreadable", b"secret", b"moved"}:
        return Answer(status, key=text(*rest))
    if status != b"ok":
        raise ValueError("not an answer of this script")
    seq, *values = rest
    return Answer(status, integer(seq), rest=read(*values))


def nothing() -> None:
    """No rest."""


def integer(answer: object) -> int:
    """A number."""
    return expect(int, answer)


def text(answer: object) -> str:
    """A text."""
    return expect(bytes, answer).decode()


def flag(answer: object) -> bool:
    """A number as yes or no."""
    return bool(integer(answer))


def flags(count: int, answer: object) -> list[bool]:
    """As many of those as were asked for."""
    return [flag(each) for each in _of_length(count, answer)]


def rows(count: int, answer: object) -> list[bytes | None]:
    """As many stored records as were asked for, None where there is none."""
    return [None if each is None else expect(bytes, each) for each in _of_length(count, answer)]


def _of_length(count: int, answer: object) -> list[object]:
    found = expect(list, answer)
    if len(found) != count:
        raise ValueError("not as many answers as questions")
    return found


def texts(answer: object) -> list[str]:
    """Those texts that there are."""
    return [text(each) for each in expect(list, answer) if each is not None]


def _pairs(answer: object) -> Iterable[tuple[object, object]]:
    found = expect(list, answer)
    return zip(found[::2], found[1::2], strict=True)


def due(answer: object) -> list[tuple[str, bytes]]:
    """Keys and stored records."""
    return [(text(key), expect(bytes, row)) for key, row in _pairs(answer)]


def accepted(origin: float, answer: object) -> dict[str, float]:
    """Jobs, and when the cloud created them; their scores count from `origin`."""
    return {_unescaped(text(job)): float(text(score)) - origin for job, score in _pairs(answer)}


def count(answer: object) -> PageCount:
    """Pages of a day and a month."""
    day_used, day_held, month_used, month_held = map(integer, expect(list, answer))
    return PageCount(Pages(day_used, day_held), Pages(month_used, month_held))


def begun(
    outcome: object, key: object, row: object, pages: object, day: object
) -> tuple[Outcome, str, bytes, PageCount, str]:
    """Outcome, key and stored record of what was found, pages, and the store's day."""
    named = _OUTCOMES[expect(bytes, outcome)]
    found = expect(bytes, row)
    if bool(found) != (named in {"known", "duplicate", "occupied"}):
        raise ValueError("a record is missing")
    return named, text(key), found, count(pages), day_of(day)


def state(answer: object) -> tuple[StoreState, str]:
    """The state, and the id of the server; empty: it does not say."""
    generation, seq, cloud_mark, lost_since, day, secrets, server = expect(list, answer)
    mark, lost = _number("cloud_mark", text(cloud_mark) or "0"), _number("lost_since", text(lost_since) or "0")
    words = text(secrets).split()
    uses = tuple(
        SecretUse(*each) for each in zip(words[::2], (_number("secrets", word) for word in words[1::2]), strict=False)
    )
    return StoreState(text(generation), integer(seq), mark, lost, day_of(day), uses), text(server)


def _number(field: str, word: str) -> float:
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise Damaged("m", field, "a time")
    return number


def day_of(answer: object) -> str:
    """A day such as `2026-11-29`; empty: none."""
    word = text(answer)
    try:
        is_day = not word or date.fromisoformat(word).isoformat() == word
    except ValueError:
        is_day = False
    if not is_day:
        raise Damaged("m", "day", "a day")
    return word


def leases(answer: object) -> list[Lease]:
    """All leases."""
    found = {}
    for name, value in _pairs(answer):
        try:
            replica, caller, day = (_unescaped(word) for word in text(name).removeprefix("lease:").split("\t"))
            pages, renewed_at = text(value).split(" ")
            # Read in steps, in which a lease may come twice.
            found[name] = Lease(replica, caller, day, int(pages), float(renewed_at))
        except ValueError:
            raise Damaged("p", text(name), "a lease") from None
    return list(found.values())


def _unescaped(word: str) -> str:
    parts = word.split("\\\\")
    return "\\".join(part.replace("\\t", "\t").replace("\\n", "\n") for part in parts)


def scanned(answer: object) -> tuple[int, dict[str, bytes]]:
    """The cursor and the fields of a step through a hash, which the library has made a mapping of."""
    cursor, found = expect(tuple, answer)
    return integer(cursor), {text(key): expect(bytes, value) for key, value in expect(dict, found).items()}
