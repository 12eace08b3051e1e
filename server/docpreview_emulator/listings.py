"""Pages of a bucket's keys: by prefix and marker, rolled up at a delimiter. Pure.

As in the vendor's documents 436/7734 (objects) and 436/7736 (multipart uploads).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from docpreview_emulator.errors import CloudError, invalid_argument
from docpreview_emulator.requests import read_number

MAX_KEYS = 1000
"""Most entries of one page, and their number by default."""

MAX_TEXT = 1024
"""Characters of a prefix, delimiter or marker."""

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True)
class KeyQuery:
    """What a page of keys shows: those that begin with `prefix` and come after `marker`, at most `size` entries.

    Keys that have `delimiter` after the prefix are one entry, their common prefix.
    """

    prefix: str = ""
    delimiter: str = ""
    marker: str = ""
    size: int = MAX_KEYS
    url_encoded: bool = False

    def common_prefix(self, key: str) -> str:
        """The entry that stands for this key and others; empty when it stands for itself."""
        at = key.find(self.delimiter, len(self.prefix)) if self.delimiter else -1
        return "" if at < 0 else key[: at + len(self.delimiter)]


def read_key_query(params: Mapping[str, str], marker: str = "marker", size: str = "max-keys") -> KeyQuery:
    """The query of a list of keys; `marker` and `size` name the parameters that differ between lists.

    Raises:
        CloudError: 400 InvalidArgument or InvalidURI.
    """
    for name in ("prefix", "delimiter", marker):
        if len(params.get(name, "")) > MAX_TEXT:
            raise CloudError(400, "InvalidURI", f"{name} may have {MAX_TEXT} characters.")
    return KeyQuery(
        params.get("prefix", ""),
        params.get("delimiter", ""),
        params.get(marker, ""),
        read_number(params, size, MAX_KEYS, MAX_KEYS),
        is_url_encoded(params),
    )


def is_url_encoded(params: Mapping[str, str]) -> bool:
    """Whether the answer has its keys percent-encoded.

    Raises:
        CloudError: 400 InvalidArgument: another encoding than `url`.
    """
    encoding = params.get("encoding-type", "")
    if encoding not in {"", "url"}:
        raise invalid_argument("encoding-type must be url.")
    return bool(encoding)


@dataclass(frozen=True, slots=True)
class KeyPage(Generic[Item]):
    """One page: its items, the common prefixes, and the last entry, after which more follow; empty: none follow."""

    items: list[Item]
    prefixes: list[str]
    next_marker: str = ""


def page_of(entries: Iterable[tuple[str, Item]], query: KeyQuery) -> KeyPage[Item]:
    """The first page of items with their keys, which are in order, have the prefix and come after the marker."""
    items: list[Item] = []
    prefixes: list[str] = []
    last = ""
    for key, item in entries if query.size else ():
        common = query.common_prefix(key)
        if common and common in {query.marker, *prefixes[-1:]}:
            continue
        if len(items) + len(prefixes) == query.size:
            return KeyPage(items, prefixes, last)
        last = common or key
        if common:
            prefixes.append(common)
        else:
            items.append(item)
    return KeyPage(items, prefixes)
