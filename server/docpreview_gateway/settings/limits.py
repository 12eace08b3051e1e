"""Settings of the limits of callers, in the gateway's configuration and in the policy. Errors say what to write."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationInfo,
    field_validator,
    model_validator,
)

from docpreview_gateway.model.callers import Caller, PageBudget, Rate
from docpreview_gateway.model.contract import METHOD_NAMES

Value = TypeVar("Value")
TUNING = "tuning"
Tuning = Annotated[Value, TUNING]
"""The type of a setting with a default that suits nearly everyone; docs/configuration.md has a table of these alone."""


MOST_PATH = 4096
MOST_NAME = 255
"""Bytes of a path, and of a name in it."""


def _takes_truth(kind: Any) -> bool:  # noqa: ANN401 - annotations of any kind
    return kind is bool or any(_takes_truth(part) for part in get_args(kind))


def usable_path(value: Value) -> Value:
    """The value; ValueError for a path that no system takes, at which each command would fail in its own way."""
    if isinstance(value, Path) and (len(os.fsencode(value)) >= MOST_PATH or _longest(value) > MOST_NAME):
        raise ValueError(f"is too long: a path has fewer than {MOST_PATH} bytes, and a name in it {MOST_NAME} at most")
    return value


def _longest(path: Path) -> int:
    return max((len(os.fsencode(part)) for part in path.parts), default=0)


class Section(BaseModel):
    """A map of settings: unknown keys are errors, and no message quotes a value."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: object, info: ValidationInfo) -> object:
        """Reject true and false, which Python takes for 1 and 0, where they are not asked for."""
        if isinstance(value, bool) and not _takes_truth(cls.model_fields[str(info.field_name)].annotation):
            raise ValueError("must not be true or false")
        return value

    _usable_paths = field_validator("*")(usable_path)


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
    """A rate limit: calls per second in the long run, and in a burst."""

    per_second: float = Field(gt=0, le=100_000, description="calls per second in the long run; 0.1: one in ten seconds")
    burst: int | None = Field(
        None, ge=1, le=1_000_000, description="calls in a burst; default: the calls of one second"
    )

    def rate(self) -> Rate:
        """The rate; without `burst` its burst is the calls of a second."""
        return Rate(self.per_second, self.burst or max(1, math.ceil(self.per_second)))


class BudgetSettings(Section):
    """A page quota of a caller's jobs, per day and month of UTC. Without either pages are counted only."""

    per_day: int | None = Field(None, ge=0, le=10**12, description="pages per day")
    per_month: int | None = Field(None, ge=0, le=10**12, description="pages per month")
    estimate: int = Field(
        50, ge=1, le=5000, description="pages charged for a create that does not say how many it wants"
    )
    count: Literal["estimate", "asked"] = Field(
        "estimate",
        description="pages that are reserved for a create that does not say how many it wants. `estimate`: those of "
        "`estimate`, and its job may make more; `asked`: such creates are refused, so no job makes more pages than "
        "were reserved",
    )
    outage_pages: int = Field(
        0,
        ge=0,
        le=10**12,
        description="pages that each replica may let the caller make in a day while it cannot reach the store",
    )

    def budget(self) -> PageBudget:
        """The budget."""
        return PageBudget(self.per_day, self.per_month, self.estimate, self.count, self.outage_pages)


RateWords = Annotated[RateSettings, BeforeValidator(_rate_words)]
BudgetWords = Annotated[BudgetSettings, BeforeValidator(_budget_words)]


class CallerLimitSettings(Section):
    """The limits of one caller. Without a key there is no such limit."""

    rate: RateWords | None = Field(
        None,
        description="`{per_second: 100, burst: 200}`: rate limit of all calls; default of `burst`: the calls of one "
        "second",
    )
    method_rates: dict[str, RateWords] = Field(
        {}, description="`{CreatePreviewJob: {per_second: 5}}`: rate limits of single methods, in addition"
    )
    concurrency: int | None = Field(
        None,
        ge=1,
        le=1_000_000,
        description="maximum number of concurrent calls, waits and watches included, per process",
    )
    weight: float = Field(1.0, gt=0, le=1000, description="weight of the caller in fair queueing for the cloud")
    budget: BudgetWords | None = Field(
        None,
        description="`{per_day: 5000, per_month: 100000, estimate: 50}`: page quota per day and month of UTC, each "
        "optional; `estimate`: pages charged for a create that does not say how many it wants; `count: asked`: such "
        "creates are refused; `outage_pages: 100`: pages that each replica may let the caller make in a day while it "
        "cannot reach the store. `{}`: pages are counted only",
    )
    shadow: bool = Field(default=False, description="dry run: limits are counted and reported, and nothing is rejected")

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
        if unknown := sorted(self.method_rates.keys() - METHOD_NAMES):
            raise ValueError(
                f"method_rates: no such method: {', '.join(unknown)}; there are {', '.join(sorted(METHOD_NAMES))}"
            )
        return self
