"""GCRA: how many calls a rule lets pass, with one number for each rule as its whole memory.

The number is the *theoretical arrival time*: when the last admitted call would have come, had all come evenly. The
clock is the caller's; it must not go back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from docpreview_gateway.model.callers import Caller, Rate

LimitKind: TypeAlias = Literal["rate", "method_rate", "concurrency", "account", "page_budget"]

_SLACK = 1e-9
"""Seconds that sums of floats may be off."""


class Rule(NamedTuple):
    """One call in `interval` seconds, `tolerance` seconds ahead of that at most. `key` names what is counted."""

    key: str
    kind: LimitKind
    interval: float
    tolerance: float


class Refusal(NamedTuple):
    """The rule that does not let a call pass, and the seconds after which it will."""

    rule: Rule
    wait: float


class Rates:
    """What has passed, by rule. A refused call is charged to none of its rules."""

    def __init__(self) -> None:
        self._arrivals: dict[str, float] = {}

    def take(self, rules: tuple[Rule, ...], now: float) -> Refusal | None:
        """Charge a call to all of the rules, or say which of them makes it wait longest."""
        arrivals = self._arrivals
        worst: Refusal | None = None
        for rule in rules:
            wait = arrivals.get(rule.key, now) - rule.tolerance - now
            if wait > _SLACK and (worst is None or wait > worst.wait):
                worst = Refusal(rule, wait)
        if worst is None:
            for rule in rules:
                arrivals[rule.key] = max(arrivals.get(rule.key, now), now) + rule.interval
        return worst


def rule(key: str, kind: LimitKind, rate: Rate) -> Rule:
    """The rule of a rate."""
    interval = 1 / rate.per_second
    return Rule(key, kind, interval, (rate.burst - 1) * interval)


def part(whole: Rule, share: int) -> Rule:
    """What each of `share` processes keeps that keep a rule together without hearing of each other."""
    burst = whole.tolerance / whole.interval + 1
    interval = share * whole.interval
    return Rule(whole.key, whole.kind, interval, max(0.0, burst / share - 1) * interval)


def rules_of(caller: Caller, method: str) -> tuple[Rule, ...]:
    """The rules that a call of `caller` must pass: that of all its calls, and that of the method."""
    found = []
    if caller.rate is not None:
        found.append(rule(f"caller:{caller.name}", "rate", caller.rate))
    if (rate := caller.method_rates.get(method)) is not None:
        found.append(rule(f"caller:{caller.name}:{method}", "method_rate", rate))
    return tuple(found)
