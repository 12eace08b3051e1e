"""Limits of a caller: concurrent calls, rate of all calls, rate of the calls of a method.

Rates are counted by the shared store if there is one, so that replicas keep one limit together, else by this process.
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
"""Retry delay for a caller with too many concurrent calls. When one of them ends is unknown."""

STORE_SECONDS = 1.0
"""Retry delay for a caller whose limits cannot be counted."""


class Counting:
    """The port `RateCounter`: rates counted by the shared store, or locally without one.

    While the store is unavailable, calls are counted locally, or refused with `refuse_without_store`. Each of `share`
    processes that count locally has its share of every rate, so that together they keep the limit.
    """

    def __init__(
        self, shared: SharedRates | None = None, *, refuse_without_store: bool = False, share: int = 1
    ) -> None:
        self._shared = shared
        self._share = share
        self._refuse = refuse_without_store
        self._local = Rates()
        self._refused_until: dict[str, tuple[Rule, float]] = {}
        """Rules that refuse every call before an instant. The store is not asked again until then."""

    async def take(self, rules: tuple[Rule, ...]) -> tuple[Refusal | None, bool]:
        """Charge a call to all rules or, with a refusal, to none; whether it was counted locally for lack of the store.

        LIMITER_UNAVAILABLE.
        """
        now = time.monotonic()
        if self._shared is None:
            return self._take_locally(rules, now), False
        for rule in rules:
            known, until = self._refused_until.get(rule.key, (None, 0.0))
            if known == rule and now < until:
                return Refusal(rule, until - now), False
        try:
            refusal = await self._shared.take(rules)
        except StoreUnavailableError:
            if self._refuse:
                raise _unavailable() from None
            return self._take_locally(rules, now), True
        if refusal is not None:
            # Other replicas can only make it later. The wait counts from before the command was sent: a call that comes
            # too early is refused again by the store, while a late instant would refuse calls that are within the rate.
            self._refused_until[refusal.rule.key] = refusal.rule, now + refusal.wait
        return refusal, False

    def _take_locally(self, rules: tuple[Rule, ...], now: float) -> Refusal | None:
        if self._share > 1:
            rules = tuple(part(each, self._share) for each in rules)
        return self._local.take(rules, now)


def has_limits(caller: Caller) -> bool:
    """Whether the caller has a limit of any kind."""
    return caller.concurrency is not None or caller.rate is not None or bool(caller.method_rates)


class CallLimits:
    """The port `CallGate`. Concurrent calls are counted per process, and each of `share` processes admits its share."""

    def __init__(self, counting: RateCounter, telemetry: LimitsTelemetry, *, share: int = 1) -> None:
        self._counting = counting
        self._telemetry = telemetry
        self._share = share
        self._in_flight: dict[str, int] = {}
        self._rules: dict[tuple[str, str], tuple[Caller, tuple[Rule, ...]]] = {}

    async def enter(self, caller: Caller, method: str) -> None:
        """Admit a call of an RPC method, or raise LimitReached or LIMITER_UNAVAILABLE. Waits only for the store."""
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
        """Count the end of an admitted call."""
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
            refusal, is_local = await self._counting.take(rules)
        except GatewayError:
            self._telemetry.limit(caller.name, rules[0].kind, "shadowed" if caller.shadow else "refused")
            if caller.shadow:
                return
            raise
        if refusal is None:
            for rule in rules:
                self._telemetry.limit(caller.name, rule.kind, "degraded" if is_local else "allowed")
            return
        self._telemetry.limit(caller.name, refusal.rule.kind, "shadowed" if caller.shadow else "refused")
        if not caller.shadow:
            _refuse(caller, refusal)

    def _rules_of(self, caller: Caller, method: str) -> tuple[Rule, ...]:
        """The caller's rules for a method, cached until its limits change."""
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
