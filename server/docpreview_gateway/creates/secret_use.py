"""Which secrets the records of a store are made with, and whether a process has all of them.

A process without one of them would not find the records that were made with it: a repeated id would make a second job.
So the store keeps the id of each secret with which something was written, and the cloud's time of its last use. A
secret that nobody has used for as long as creates are remembered may be missing.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from docpreview_gateway.creates.outlook import ACCEPT

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from docpreview_gateway.creates.ports import SecretUse

MARGIN_SECONDS = 900.0
"""How much later than noted a secret may have been used: notes are behind the cloud's time, and not written often."""

TO_DO = (
    "give all replicas the same ledger.key_file (a new secret goes to its second line first), or, if that secret is "
    f"lost, run {ACCEPT}"
)


def unknown(uses: Sequence[SecretUse], ids: Collection[str], now: float | None, keep: float) -> list[SecretUse]:
    """Those secrets of a store that are none of `ids`, and with which records may be made that are still remembered.

    `now` is the cloud's time, None as long as it is not known; `keep` the seconds for which creates are remembered.
    """

    def may_be_remembered(use: SecretUse) -> bool:
        return now is None or not use.used_at or use.used_at + keep + MARGIN_SECONDS > now

    return [use for use in uses if use.id not in ids and may_be_remembered(use)]


def in_use(uses: Sequence[SecretUse], now: float) -> list[SecretUse]:
    """Those that somebody may be using at `now`, the cloud's time: what is noted of them is that young."""
    return [use for use in uses if use.used_at + MARGIN_SECONDS > now]


def named(uses: Sequence[SecretUse]) -> str:
    """Their ids, each with the last use that was noted."""
    return ", ".join(f"{use.id}{_last(use.used_at)}" for use in uses)


def problem(missing: Sequence[SecretUse]) -> str:
    """What is wrong with a process that does not have these secrets, and what to do; empty: it has all."""
    if not missing:
        return ""
    return f"records are made with a secret that is not in ledger.key_file (its id is {named(missing)}): {TO_DO}"


def _last(used_at: float) -> str:
    if not used_at:
        return ""
    return f", last noted use {datetime.fromtimestamp(used_at, UTC).isoformat(timespec='seconds')}"
