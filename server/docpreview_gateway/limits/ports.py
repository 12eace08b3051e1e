"""Ports of limits: rate counters, the gate of calls, and telemetry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from docpreview_gateway.limits.gcra import LimitKind, Refusal, Rule
    from docpreview_gateway.model.callers import Caller


class StoreUnavailableError(Exception):
    """What replicas share does not answer."""


class SharedRates(Protocol):
    """Rates that replicas keep together."""

    async def take(self, rules: tuple[Rule, ...]) -> Refusal | None:
        """As `gcra.Rates.take`, for all replicas together. StoreUnavailableError, within a short time."""
        ...


class RateCounter(Protocol):
    """Counts calls: for all replicas while it can, else for this process."""

    async def take(self, rules: tuple[Rule, ...]) -> tuple[Refusal | None, bool]:
        """Charge a call to all rules unless one refuses it; whether this process had to decide alone."""
        ...


class CallGate(Protocol):
    """Lets calls pass that their caller's limits allow."""

    async def enter(self, caller: Caller, method: str) -> None:
        """Charge a call of the RPC `method`. LimitReached, or LIMITER_UNAVAILABLE."""
        ...

    def leave(self, caller: Caller) -> None:
        """A call that entered has ended."""
        ...


class LimitsTelemetry(Protocol):
    """Records what limits decide."""

    def limit(
        self, caller: str, limit: LimitKind, outcome: Literal["allowed", "refused", "shadowed", "degraded"]
    ) -> None:
        """Records a decision on a call. `degraded`: allowed by this process's count, the shared store being down."""
        ...
