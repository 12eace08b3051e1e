"""Settings of what a caller may use up, in words that its part of a file has. Mistakes are told with what to write."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from docpreview.v1 import preview_job_service_pb2, preview_queue_service_pb2, usage_service_pb2
from docpreview_gateway.model.callers import Caller, PageBudget, Rate

METHODS = frozenset(
    method.name
    for module in (preview_job_service_pb2, preview_queue_service_pb2, usage_service_pb2)
    for service in module.DESCRIPTOR.services_by_name.values()
    for method in service.methods
)


class Section(BaseModel):
    """A map of settings: unknown keys are errors, and no message quotes a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


def _rate_words(value: object) -> object:
    if isinstance(value, int | float | str):
        raise ValueError("a rate has a unit: write {per_second: 100, burst: 200}")  # noqa: TRY004 - pydantic's way
    return value


def _budget_words(value: object) -> object:
    if isinstance(value, int | float | str):
        raise ValueError(  # noqa: TRY004 - pydantic's way
            "a budget has a unit: write {per_day: 5000}, {per_month: 100000}, or both"
        )
    return value


class RateSettings(Section):
    """Calls in a second in the long run, and at once."""

    per_second: float = Field(gt=0, le=100_000, description="calls in a second; 0.1: one in ten seconds")
    burst: int | None = Field(None, ge=1, le=1_000_000, description="calls at once; default: those of a second")

    def rate(self) -> Rate:
        """The same for core."""
        return Rate(self.per_second, self.burst or max(1, math.ceil(self.per_second)))


class BudgetSettings(Section):
    """Pages that a caller's jobs may make, by day and month of UTC. Without either they are counted only."""

    per_day: int | None = Field(None, ge=0, le=10**12, description="pages in a day")
    per_month: int | None = Field(None, ge=0, le=10**12, description="pages in a month")
    estimate: int = Field(50, ge=1, le=5000, description="what a create counts for that does not say how many pages")

    def budget(self) -> PageBudget:
        """The same for core."""
        return PageBudget(self.per_day, self.per_month, self.estimate)


RateWords = Annotated[RateSettings, BeforeValidator(_rate_words)]
BudgetWords = Annotated[BudgetSettings, BeforeValidator(_budget_words)]


class CallerLimitSettings(Section):
    """What one caller may use up. Nothing is limited that is not named."""

    rate: RateWords | None = Field(
        None,
        description="`{per_second: 100, burst: 200}`: calls in a second in the long run, and at once (default: those "
        "of a second)",
    )
    method_rates: dict[str, RateWords] = Field(
        {}, description="rates of single methods, in addition: `{CreatePreviewJob: {per_second: 5}}`"
    )
    concurrency: int | None = Field(
        None, ge=1, le=1_000_000, description="calls at once, waits and watches included, by process"
    )
    weight: float = Field(1.0, gt=0, le=1000, description="its share when callers wait for the cloud")
    budget: BudgetWords | None = Field(
        None,
        description="`{per_day: 5000, per_month: 100000, estimate: 50}`: pages by day and month of UTC, each "
        "optional; `estimate` is what a create counts for that does not say how many pages it wants. `{}`"
        " counts only",
    )
    shadow: bool = Field(default=False, description="count and report what would be refused, and refuse nothing")

    def caller(self, name: str) -> Caller:
        """The caller of this name, with these limits."""
        return Caller(
            name,
            weight=self.weight,
            rate=self.rate.rate() if self.rate else None,
            method_rates={method: found.rate() for method, found in self.method_rates.items()},
            concurrency=self.concurrency,
            budget=self.budget.budget() if self.budget else None,
            shadow=self.shadow,
        )

    @model_validator(mode="after")
    def _known_methods(self) -> CallerLimitSettings:
        if unknown := sorted(self.method_rates.keys() - METHODS):
            raise ValueError(
                f"method_rates: no such method: {', '.join(unknown)}; there are {', '.join(sorted(METHODS))}"
            )
        return self
