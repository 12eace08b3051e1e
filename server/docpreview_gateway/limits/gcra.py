"""Rate limiting by GCRA, the generic cell rate algorithm: one number is the whole state of a rule.

The number is the *theoretical arrival time*: when the next call is due if calls come evenly. Instants are seconds of
any clock that does not go back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from docpreview_gateway.model.callers import Caller, Rate

LimitKind: TypeAlias = Literal["rate", "method_rate", "concurrency", "share", "account", "page_budget"]

_SLACK = 1e-9
"""Seconds of rounding error in sums of floats."""


class Rule(NamedTuple):
    """A rate limit: one call in `interval` seconds, at most `tolerance` seconds early. `key` names the counter."""

    key: str
    kind: LimitKind
    interval: float
    tolerance: float


class Refusal(NamedTuple):
    """A rejection: the rule, and the seconds until it admits the call."""

    rule: Rule
    wait: float


class Rates:
    """Counters by rule, in this process. A rejected call is charged to none of its rules."""

    def __init__(self) -> None:
        self._arrivals: dict[str, float] = {}

    def take(self, rules: tuple[Rule, ...], now: float) -> Refusal | None:
        """Charge a call to all rules, or return the refusal with the longest wait."""
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

    def forget_idle(self, now: float) -> None:
        """Forget the counters that are as if they had never counted."""
        self._arrivals = {key: due for key, due in self._arrivals.items() if due > now}


def rule(key: str, kind: LimitKind, rate: Rate) -> Rule:
    """The rule that enforces a rate."""
    interval = 1 / rate.per_second
    return Rule(key, kind, interval, (rate.burst - 1) * interval)


NEVER_REFUSED = 1e9
"""Seconds of tolerance with which a rule refuses nothing; a number that a store's script can calculate with."""


def debt(whole: Rule, calls: int) -> Rule:
    """The rule that charges `calls` to the counter of `whole` at once, and is never refused.

    What exceeds the burst is a debt: `whole` admits the next call when it is repaid.
    """
    return Rule(whole.key, whole.kind, calls * whole.interval, NEVER_REFUSED)


def divided(whole: Rule, share: int) -> Rule:
    """The rule for each of `share` processes that together keep `whole` without sharing counters."""
    burst = whole.tolerance / whole.interval + 1
    interval = share * whole.interval
    return Rule(whole.key, whole.kind, interval, max(0.0, burst / share - 1) * interval)


def rules_of(caller: Caller, method: str) -> tuple[Rule, ...]:
    """The rules for a call of `caller`: that of all its calls, then that of the method."""
    rules = []
    if caller.rate is not None:
        rules.append(rule(f"caller:{caller.name}", "rate", caller.rate))
    if (rate := caller.method_rates.get(method)) is not None:
        rules.append(rule(f"caller:{caller.name}:{method}", "method_rate", rate))
    return tuple(rules)
