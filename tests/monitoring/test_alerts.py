"""Every alert is raised by its fault in a real gateway, and its runbook leads to the cure.

A real Prometheus scrapes real gateway processes and evaluates the chart's rules, with a minute as a second. All trials
run beside each other from the first test on: a test is the result of one.
"""

from __future__ import annotations

import asyncio
import inspect
import re
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from tests.monitoring import faults_cloud, faults_creates, faults_process
from tests.monitoring.alert_stage import Stage, Trial, runbook, stage
from tests.monitoring.faults import FAULTS
from tests.monitoring.runbooks import RUNBOOKS, commands, runnable
from tests.monitoring.short_rules import RULES, alerts, short_rules

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(400)]
MODULES = (faults_cloud, faults_creates, faults_process)
"""Each has added its faults when it was imported."""

BESIDE_EACH_OTHER = 6
"""Trials at a time: more would start so many processes at once that they wait for each other."""

NOT_RAISED: dict[str, str] = {}
"""Alerts without a trial, with the reason."""


class Trials:
    """The trials of these names, in a thread with an event loop of its own."""

    def __init__(self, folder: Path, names: list[str]) -> None:
        self._folder = folder
        self.results: dict[str, Future[set[str]]] = {name: Future() for name in names}
        self._permits = asyncio.Semaphore(BESIDE_EACH_OTHER)
        self._thread = threading.Thread(target=lambda: asyncio.run(self._play_all()), name="alert trials")
        self._thread.start()

    def close(self) -> None:
        """Wait until all have ended."""
        self._thread.join()

    async def _play_all(self) -> None:
        try:
            async with stage(self._folder) as shown:
                await asyncio.gather(*(self._play(shown, name) for name in self.results))
        except BaseException as error:  # noqa: BLE001 - raised by the tests
            for result in self.results.values():
                if not result.done():
                    result.set_exception(error)

    async def _play(self, shown: Stage, name: str) -> None:
        async with self._permits:
            folder = self._folder / name
            folder.mkdir()
            trial = Trial(shown, folder, name)
            try:
                await FAULTS[name].play(trial)
            except BaseException as error:  # noqa: BLE001 - as above; a skipped test is one, too
                self.results[name].set_exception(error)
            else:
                self.results[name].set_result(trial.fired)


@pytest.fixture(scope="module")
def trials(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    chosen = [
        str(item.callspec.params["name"])
        for item in request.session.items
        if isinstance(item, pytest.Function) and item.path == Path(__file__) and "trials" in item.fixturenames
    ]
    running = Trials(tmp_path_factory.mktemp("alerts"), chosen)
    yield running
    running.close()


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_raises_its_alerts_and_no_others_until_it_is_mended(trials: Trials, name: str) -> None:
    """The trial follows the runbooks of its alerts: their commands run, show the fault, and where they can mend it."""
    fired = trials.results[name].result()
    wanted = FAULTS[name]
    assert set(wanted.alerts) <= fired <= {*wanted.alerts, *wanted.beside}


def test_every_alert_is_raised_by_a_fault_or_is_marked_with_a_reason() -> None:
    raised = {alert for found in FAULTS.values() for alert in found.alerts}
    assert not raised & NOT_RAISED.keys()
    assert raised | NOT_RAISED.keys() == alerts().keys()
    assert all(NOT_RAISED.values())


@pytest.mark.parametrize("alert", alerts())
def test_the_runbook_of_every_alert_is_followed_by_a_trial_that_raises_it(alert: str) -> None:
    """It exists, the list of runbooks links it, it sets its variables first, and all of it runs but for a cluster's."""
    name = runbook(alert)
    assert f"- [{alert}]({name}.md)\n" in (RUNBOOKS / "README.md").read_text()
    every, run = commands(name), runnable(name)
    assert len(run) >= 2
    assert all(each.startswith("kubectl ") for each in set(every) - set(run))
    if alert not in NOT_RAISED:
        code = [inspect.getsource(found.play) for found in FAULTS.values() if alert in found.alerts]
        assert any(f'"{name}"' in each and ".diagnose(" in each for each in code)


@pytest.mark.parametrize("path", sorted(RUNBOOKS.glob("*-*.md")), ids=lambda path: path.stem)
def test_a_runbook_sets_a_variable_before_it_uses_it(path: Path) -> None:
    """The name of a release too: no deployment is called `docpreview-gateway` in every cluster."""
    known = {"HOME"}
    for command in commands(path.stem):
        shell_words = re.sub(r"'[^']*'", "", command)
        assert set(re.findall(r"\$([A-Z]+)", shell_words)) <= known, command
        known |= set(re.findall(r"(?:^|\s)([A-Z]+)=", shell_words))


def test_the_rules_are_shortened_by_a_factor_and_are_else_as_they_are_shipped() -> None:
    """Only ranges, offsets, `for`, intervals, and thresholds of ages in seconds differ."""
    for path in RULES:
        shipped, short = yaml.safe_load(path.read_text()), short_rules(path)
        for one, other in zip(shipped["groups"], short["groups"], strict=True):
            for before, after in zip(one["rules"], other["rules"], strict=True):
                assert before.keys() == after.keys()
                assert re.sub(r"\d+m?[smhd]\b|> \d+", "", before["expr"]) == re.sub(
                    r"\d+m?[smh]\b|> \d+", "", after["expr"]
                )
                assert [before.get(key) for key in ("alert", "record", "labels", "annotations")] == [
                    after.get(key) for key in ("alert", "record", "labels", "annotations")
                ]
