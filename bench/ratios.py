"""Ratios of two subjects that took turns, and what is promised of them."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Ratio:
    """The lowest, the median and the highest of the rounds' ratios."""

    low: float
    middle: float
    high: float

    @classmethod
    def of(cls, rates: Sequence[float], peer_rates: Sequence[float]) -> Ratio:
        """Of each round's rate to the peer's in the same round. ValueError when they had not as many rounds."""
        ratios = [mine / other for mine, other in zip(rates, peer_rates, strict=True)]
        return cls(min(ratios), median(ratios), max(ratios))


@dataclass(frozen=True)
class Comparison:
    """A ratio of calls per CPU second; `promise` fails the run when broken, `aim` is what is wanted and only told."""

    name: str
    peer: str
    ratio: Ratio
    promise: float | None = None
    aim: float | None = None

    @property
    def kept(self) -> bool:
        return self.promise is None or self.ratio.middle >= self.promise

    @property
    def reached(self) -> bool:
        return self.aim is None or self.ratio.middle >= self.aim

    def line(self) -> str:
        """A row of the table."""
        ratio = self.ratio
        spread = f"{ratio.low:>8.2f}{ratio.middle:>8.2f}{ratio.high:>8.2f}"
        promise = "" if self.promise is None else f"{self.promise:.2f} {'kept' if self.kept else 'BROKEN'}"
        aim = "" if self.aim is None else f"{self.aim:.2f} {'reached' if self.reached else 'not reached'}"
        return f"{self.name:<20}{self.peer:<20}{spread}   {promise:<13}{aim}".rstrip()


def table(comparisons: Sequence[Comparison]) -> str:
    """All of them, with a head."""
    head = f"{'subject':<20}{'x peer':<20}{'lowest':>8}{'median':>8}{'highest':>8}   {'promise':<13}aim"
    return "\n".join([head, *(comparison.line() for comparison in comparisons)])
