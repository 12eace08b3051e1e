"""The faults that raise the alerts, by name: each module `faults_*` adds its own with the decorator `fault`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.monitoring.alert_stage import Trial

    Play: TypeAlias = Callable[[Trial], Awaitable[None]]

BURNS = ("DocpreviewErrorBudgetBurnsFast", "DocpreviewErrorBudgetBurnsSlowly")


@dataclass(frozen=True)
class Fault:
    """A fault, the alerts that its trial waits for, and those that may fire `beside` them."""

    alerts: tuple[str, ...]
    beside: tuple[str, ...]
    play: Play


FAULTS: dict[str, Fault] = {}


def fault(*alerts: str, beside: tuple[str, ...] = ()) -> Callable[[Play], Play]:
    """Add the decorated trial: it causes the fault, sees the alerts fire, follows their runbooks, and sees them end."""

    def add(play: Play) -> Play:
        FAULTS[play.__name__] = Fault(alerts, beside, play)
        return play

    return add
