"""What a caller may do at once and in a while: calls at once, all calls in a second, calls of a method in a second.

Counted by the shared store where there is one, so that replicas keep one limit together; by this process otherwise.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, NoReturn

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.limits.gcra import Rates, Refusal, Rule, part, rules_of
from docpreview_gateway.limits.ports import StoreUnavailableError
from docpreview_gateway.model.errors import GatewayError, LimitReached

if TYPE_CHECKING:
    from docpreview_gateway.limits.ports import LimitsTelemetry, RateCounter, SharedRates
    from docpreview_gateway.model.callers import Caller

CONCURRENCY_SECONDS = 0.3
"""What a caller with too many calls at once is told to wait: nobody knows when one of them ends."""

STORE_SECONDS = 1.0
"""What a caller is told to wait whose limits nobody can count."""


class Counting:
    """The port `RateCounter`, by the shared store (None: by this process).

    While the store does not answer, this process counts for itself, or, with `refuse_without_store`, nobody passes. Of
    what it counts for itself each of `share` processes lets its part pass, so that together they keep the limit.
    """

    def __init__(
        self, shared: SharedRates | None = None, *, refuse_without_store: bool = False, share: int = 1
    ) -> None:
        self._shared = shared
        self._share = share
        self._refuse = refuse_without_store
        self._own = Rates()
        self._closed: dict[str, tuple[Rule, float]] = {}
        """Rules that let nobody pass before an instant: no need to ask the store again until then."""

    async def take(self, rules: tuple[Rule, ...]) -> tuple[Refusal | None, bool]:
        """As the port says. LIMITER_UNAVAILABLE."""
        now = time.monotonic()
        if self._shared is None:
            return self._alone(rules, now), False
        for rule in rules:
            known, until = self._closed.get(rule.key, (None, 0.0))
            if known == rule and now < until:
                return Refusal(rule, until - now), False
        try:
            refusal = await self._shared.take(rules)
        except StoreUnavailableError:
            if self._refuse:
                raise _unavailable() from None
            return self._alone(rules, now), True
        if refusal is not None:
            # Others can only make it later. Counted from before the question: too early is asked again, late is unfair.
            self._closed[refusal.rule.key] = refusal.rule, now + refusal.wait
        return refusal, False

    def _alone(self, rules: tuple[Rule, ...], now: float) -> Refusal | None:
        if self._share > 1:
            rules = tuple(part(each, self._share) for each in rules)
        return self._own.take(rules, now)


def has_limits(caller: Caller) -> bool:
    """Whether anything bounds the caller's calls."""
    return caller.concurrency is not None or caller.rate is not None or bool(caller.method_rates)


class CallLimits:
    """The port `CallGate`. `share` processes divide the calls at once, which nobody counts for all of them."""

    def __init__(self, counting: RateCounter, telemetry: LimitsTelemetry, *, share: int = 1) -> None:
        self._counting = counting
        self._telemetry = telemetry
        self._share = share
        self._in_flight: dict[str, int] = {}
        self._rules: dict[tuple[str, str], tuple[Caller, tuple[Rule, ...]]] = {}

    async def enter(self, caller: Caller, method: str) -> None:
        """As the port says. Waits for nothing but the shared store."""
        if not has_limits(caller):
            return
        self._check_concurrency(caller)
        self._in_flight[caller.name] = self._in_flight.get(caller.name, 0) + 1
        try:
            await self._check_rates(caller, method)
        except BaseException:
            self.leave(caller)
            raise

    def leave(self, caller: Caller) -> None:
        """As the port says."""
        if not has_limits(caller):
            return
        left = self._in_flight.get(caller.name, 0) - 1
        if left > 0:
            self._in_flight[caller.name] = left
        else:
            self._in_flight.pop(caller.name, None)

    def _check_concurrency(self, caller: Caller) -> None:
        if caller.concurrency is None:
            return
        bound = max(1, caller.concurrency // self._share)
        if self._in_flight.get(caller.name, 0) < bound:
            self._telemetry.limit(caller.name, "concurrency", "allowed")
            return
        if caller.shadow:
            self._telemetry.limit(caller.name, "concurrency", "shadowed")
            return
        self._telemetry.limit(caller.name, "concurrency", "refused")
        raise LimitReached(
            reasons.ERROR_REASON_CONCURRENCY_LIMITED,
            f"{caller.name} has {bound} calls under way, as many as it may have at once",
            subject=f"caller:{caller.name}:concurrency",
            retry_after=CONCURRENCY_SECONDS,
        )

    async def _check_rates(self, caller: Caller, method: str) -> None:
        rules = self._rules_of(caller, method)
        if not rules:
            return
        try:
            refusal, alone = await self._counting.take(rules)
        except GatewayError:
            self._telemetry.limit(caller.name, rules[0].kind, "shadowed" if caller.shadow else "refused")
            if caller.shadow:
                return
            raise
        if refusal is None:
            for rule in rules:
                self._telemetry.limit(caller.name, rule.kind, "degraded" if alone else "allowed")
            return
        self._telemetry.limit(caller.name, refusal.rule.kind, "shadowed" if caller.shadow else "refused")
        if not caller.shadow:
            _refuse(caller, refusal)

    def _rules_of(self, caller: Caller, method: str) -> tuple[Rule, ...]:
        """Built once for each caller and method, and again when the caller's limits change."""
        known = self._rules.get((caller.name, method))
        if known is not None and known[0] is caller:
            return known[1]
        rules = rules_of(caller, method)
        self._rules[caller.name, method] = caller, rules
        return rules


def _refuse(caller: Caller, refusal: Refusal) -> NoReturn:
    rule = refusal.rule
    what = "calls" if rule.kind == "rate" else f"calls of {rule.key.rpartition(':')[2]}"
    raise LimitReached(
        reasons.ERROR_REASON_RATE_LIMITED,
        f"{caller.name} makes more {what} than its limit lets pass: slow down, or ask for a higher limit",
        subject=rule.key,
        retry_after=refusal.wait,
    )


def _unavailable() -> GatewayError:
    return GatewayError(
        reasons.ERROR_REASON_LIMITER_UNAVAILABLE,
        "the limits of callers cannot be counted now; nothing was sent",
        retry_after=STORE_SECONDS,
    )
