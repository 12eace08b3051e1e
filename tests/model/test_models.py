"""The protocol of creates and page budgets holds in its models, and each of its rules is needed (docs/creates.md)."""

from __future__ import annotations

from typing import Any

import pytest

from tests.model import budget_model, creates_model

pytestmark = pytest.mark.timeout(900)

CREATES = [*creates_model.OLD, *creates_model.NEW, *creates_model.WITHOUT]


def check(found: tuple[str, int, list[str]], expected: Any) -> None:
    broken, states, way = found
    assert states > 1
    assert broken.startswith(expected) if expected else not broken, (broken, way)


@pytest.mark.parametrize("configuration", CREATES, ids=lambda configuration: configuration.name)
def test_creates_hold_what_they_promise_and_break_without_any_of_the_rules(configuration: creates_model.Cfg) -> None:
    check(creates_model.run(configuration), configuration.expect)


@pytest.mark.parametrize("configuration", budget_model.CONFIGS, ids=lambda configuration: configuration.name)
def test_page_budgets_hold_and_break_without_any_of_the_rules(configuration: budget_model.Cfg) -> None:
    check(budget_model.run(configuration), configuration.expect)
