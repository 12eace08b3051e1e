"""Ports of limits: rate counters, admission of calls, telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from docpreview_gateway.limits.gcra import LimitKind, Refusal, Rule
    from docpreview_gateway.model.call import Charge
    from docpreview_gateway.model.callers import Caller


class StoreUnavailableError(Exception):
    """The shared store does not answer."""


class SharedRates(Protocol):
    """Rate counters that all replicas share."""

    async def take(self, rules: tuple[Rule, ...]) -> Refusal | None:
        """`gcra.Rates.take` for all replicas. StoreUnavailableError, within a short time."""
        ...


class RateCounter(Protocol):
    """Counts calls for all replicas, or for this process while the shared store is unavailable."""

    async def take(self, rules: tuple[Rule, ...]) -> tuple[Refusal | None, bool]:
        """Charge a call to all rules or return a refusal.

        The second result is whether the call was counted locally because the shared store is unavailable.
        """
        ...


class CallGate(Protocol):
    """Admits calls within the limits of their callers."""

    async def enter(self, caller: Caller, method: str) -> Charge | None:
        """Admit a call of the RPC `method` or raise: LimitReached, or LIMITER_UNAVAILABLE.

        Returns what charges the call's further reads of the cloud; None when the caller has no rate for them.
        """
        ...

    def leave(self, caller: Caller) -> None:
        """Record the end of an admitted call."""
        ...


class LimitsTelemetry(Protocol):
    """Records what limits decide."""

    def limit(
        self, caller: str, limit: LimitKind, outcome: Literal["allowed", "refused", "shadowed", "degraded"]
    ) -> None:
        """Records a decision on a call. `degraded`: allowed by this process's count, the shared store being down."""
        ...
