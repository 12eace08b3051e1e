"""Limits of callers: concurrent calls, rate of all calls, rate of calls of one method.

Rates are counted in the shared store when there is one, so that replicas enforce them together; concurrency always in
this process.
"""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.limits.gcra import Rates, Refusal, Rule, debt, divided, rules_of
from docpreview_gateway.limits.ports import StoreUnavailableError
from docpreview_gateway.model.errors import GatewayError, LimitReached

if TYPE_CHECKING:
    from docpreview_gateway.limits.ports import LimitsTelemetry, RateCounter, SharedRates
    from docpreview_gateway.model.call import Charge
    from docpreview_gateway.model.callers import Caller

CONCURRENCY_SECONDS = 0.3
"""`retry_after` at the concurrency limit: when a call will end is unknown."""

UNAVAILABLE_SECONDS = 1.0
"""`retry_after` while limits cannot be counted."""


class Counting:
    """`RateCounter` in the shared store (None: in this process).

    While the store is unavailable, this process counts locally or, with `refuse_without_store`, rejects all calls. When
    counting locally, each of `share` processes admits its part, so that together they keep the limit.
    """

    def __init__(
        self, shared: SharedRates | None = None, *, refuse_without_store: bool = False, share: int = 1
    ) -> None:
        self._shared = shared
        self._share = share
        self._refuse_without_store = refuse_without_store
        self._local = Rates()
        self._exhausted: dict[str, tuple[Rule, float]] = {}
        """Rules that admit no call before an instant: the store need not be asked until then."""

    async def take(self, rules: tuple[Rule, ...]) -> tuple[Refusal | None, bool]:
        """Charge a call to all rules or return a refusal. LIMITER_UNAVAILABLE with `refuse_without_store`."""
        now = time.monotonic()
        if self._shared is None:
            return self._take_locally(rules, now), False
        for rule in rules:
            exhausted, until = self._exhausted.get(rule.key, (None, 0.0))
            if exhausted == rule and now < until:
                return Refusal(rule, until - now), False
        try:
            refusal = await self._shared.take(rules)
        except StoreUnavailableError:
            if self._refuse_without_store:
                raise _unavailable() from None
            return self._take_locally(rules, now), True
        if refusal is not None:
            # Other replicas can only postpone the instant. It is counted from before the request: too early costs one
            # more request, too late rejects calls unfairly.
            self._exhausted[refusal.rule.key] = refusal.rule, now + refusal.wait
        return refusal, False

    def _take_locally(self, rules: tuple[Rule, ...], now: float) -> Refusal | None:
        if self._share > 1:
            rules = tuple(divided(each, self._share) for each in rules)
        return self._local.take(rules, now)


def has_limits(caller: Caller) -> bool:
    """Whether the caller has a rate or concurrency limit."""
    return caller.concurrency is not None or caller.rate is not None or bool(caller.method_rates)


class CallLimits:
    """`CallGate` of the callers' limits. Each of `share` processes admits its part of the concurrent calls."""

    def __init__(self, counting: RateCounter, telemetry: LimitsTelemetry, *, share: int = 1) -> None:
        self._counting = counting
        self._telemetry = telemetry
        self._share = share
        self._in_flight: dict[str, int] = {}
        self._rules: dict[tuple[str, str], tuple[Caller, tuple[Rule, ...]]] = {}

    async def enter(self, caller: Caller, method: str) -> Charge | None:
        """Admit a call of the RPC `method` or raise. Waits for nothing but the shared store."""
        if not has_limits(caller):
            return None
        self._check_concurrency(caller)
        self._in_flight[caller.name] = self._in_flight.get(caller.name, 0) + 1
        try:
            rules = self._rules_of(caller, method)
            if not rules:
                return None
            await self._check_rates(caller, rules)
        except BaseException:
            self.leave(caller)
            raise
        return partial(self._charge, caller, rules)

    def leave(self, caller: Caller) -> None:
        """Record the end of an admitted call."""
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
            f"{caller.name} has {bound} concurrent calls, as many as its limit allows",
            subject=f"caller:{caller.name}:concurrency",
            retry_after=CONCURRENCY_SECONDS,
        )

    async def _charge(self, caller: Caller, rules: tuple[Rule, ...], calls: int) -> None:
        """Charge further `calls` to an admitted call's rules."""
        try:
            await self._counting.take(tuple(debt(rule, calls) for rule in rules))
        except GatewayError:
            if not caller.shadow:
                raise

    async def _check_rates(self, caller: Caller, rules: tuple[Rule, ...]) -> None:
        try:
            refusal, counted_locally = await self._counting.take(rules)
        except GatewayError:
            self._telemetry.limit(caller.name, rules[0].kind, "shadowed" if caller.shadow else "refused")
            if caller.shadow:
                return
            raise
        if refusal is None:
            for rule in rules:
                self._telemetry.limit(caller.name, rule.kind, "degraded" if counted_locally else "allowed")
            return
        self._telemetry.limit(caller.name, refusal.rule.kind, "shadowed" if caller.shadow else "refused")
        if not caller.shadow:
            _refuse(caller, refusal)

    def _rules_of(self, caller: Caller, method: str) -> tuple[Rule, ...]:
        """Built once for each caller and method, and again when the caller is replaced."""
        cached = self._rules.get((caller.name, method))
        if cached is not None and cached[0] is caller:
            return cached[1]
        rules = rules_of(caller, method)
        self._rules[caller.name, method] = caller, rules
        return rules


def _refuse(caller: Caller, refusal: Refusal) -> NoReturn:
    rule = refusal.rule
    what = "calls" if rule.kind == "rate" else f"calls of {rule.key.rpartition(':')[2]}"
    raise LimitReached(
        reasons.ERROR_REASON_RATE_LIMITED,
        f"{caller.name} makes more {what} than its rate limit allows: slow down, or ask for a higher limit",
        subject=rule.key,
        retry_after=refusal.wait,
    )


def _unavailable() -> GatewayError:
    return GatewayError(
        reasons.ERROR_REASON_LIMITER_UNAVAILABLE,
        "the limits of callers cannot be checked now; nothing was sent",
        retry_after=UNAVAILABLE_SECONDS,
    )
