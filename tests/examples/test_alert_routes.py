"""examples/production: Prometheus has the chart's alerts, and Alertmanager sends each of them to whom it is for."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
from typing import TYPE_CHECKING, Any, Self

import httpx
import pytest
import yaml
from aiohttp import web

from tests.examples.production import PORTS, PRODUCTION, Deployment, commands, deployed
from tests.packaging.project import ROOT
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ALERTS = [
    rule
    for group in yaml.safe_load((ROOT / "helm/docpreview-gateway/rules/alerts.yaml").read_text())["groups"]
    for rule in group["rules"]
]
SEVERITY = {rule["alert"]: rule["labels"]["severity"] for rule in ALERTS}
RECEIVERS = {"critical": "pager", "warning": "chat"}
PATIENCE = 30.0


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path) as found:
        found.run("./secrets.sh make")
        yield found


def test_the_files_are_valid(deployment: Deployment) -> None:
    """By the commands of the README."""
    for command in commands("Monitoring and alerts")[:2]:
        need(command.split()[0])
        said = deployment.run(command)
        assert "SUCCESS" in said
    assert f"{len(ALERTS)} rules found" in deployment.run("promtool check config prometheus.yml")


@pytest.mark.parametrize("name", SEVERITY)
def test_an_alert_goes_to_whom_it_is_for(name: str) -> None:
    """`critical` pages, `warning` waits; as Alertmanager's own tool reads the routes."""
    labels = (f"alertname={name}", f"severity={SEVERITY[name]}")
    done = subprocess.run(
        [need("amtool"), "config", "routes", "test", f"--config.file={PRODUCTION / 'alertmanager.yml'}", *labels],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.stdout.strip() == RECEIVERS[SEVERITY[name]]


def test_inhibited_alerts_and_those_that_inhibit_them_exist() -> None:
    """A renamed alert leaves no rule behind that silences nothing."""
    rules = yaml.safe_load((PRODUCTION / "alertmanager.yml").read_text())["inhibit_rules"]
    for rule in rules:
        for matcher in rule["source_matchers"] + rule["target_matchers"]:
            found = re.fullmatch(r'alertname (=|=~) "?([^"]*)"?', matcher)
            assert found, matcher
            names = [name for name in SEVERITY if re.fullmatch(found[2], name)]
            alternatives = found[2].count("|") + 1
            assert len(names) == alternatives, matcher


class Receivers:
    """PagerDuty and Slack, as far as a notification needs them."""

    def __init__(self) -> None:
        self.pages: list[dict[str, Any]] = []
        self.messages: list[dict[str, Any]] = []
        self.arrived = asyncio.Event()

    async def page(self, request: web.Request) -> web.Response:
        self.pages.append(await request.json())
        self.arrived.set()
        return web.json_response({"status": "success"}, status=202)

    async def message(self, request: web.Request) -> web.Response:
        self.messages.append(await request.json())
        self.arrived.set()
        return web.Response(text="ok")

    async def __aenter__(self) -> Self:
        app = web.Application()
        app.router.add_post("/page", self.page)
        app.router.add_post("/chat", self.message)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", PORTS["9099"]).start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def until(self, pages: int, messages: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(self.pages) < pages or len(self.messages) < messages:
                self.arrived.clear()
                await self.arrived.wait()


async def test_alertmanager_notifies_with_the_keys_of_the_folder_and_takes_new_ones_over(
    deployment: Deployment,
) -> None:
    """A page has the routing key, a message the alert's summary and its runbook; at any hour, and without the wait."""
    need("prometheus-alertmanager")
    path = deployment.folder / "alertmanager.yml"
    text = path.read_text().replace("group_wait: 30s", "group_wait: 0s")
    text = text.replace("      active_time_intervals: [working-hours]\n", "")
    path.write_text(f"global: {{pagerduty_url: 'http://127.0.0.1:{PORTS['9099']}/page'}}\n{text}")
    command = next(line for line in commands("Monitoring and alerts") if line.startswith("prometheus-alertmanager"))
    more = f" --web.listen-address=127.0.0.1:{PORTS['9093']} --cluster.listen-address= --storage.path=alerts"
    async with Receivers() as receivers:
        await asyncio.to_thread(deployment.start, command + more)
        await _fire("DocpreviewStoreLost", "DocpreviewBudgetNearlyUsed")
        await receivers.until(1, 1)
        assert [page["routing_key"] for page in receivers.pages] == ["example-routing-key"]
        assert "DocpreviewStoreLost" in json.dumps(receivers.pages)
        assert "docs/runbooks/budget-nearly-used.md" in json.dumps(receivers.messages)
        (deployment.home / "pager.key").write_text("another-routing-key")
        await asyncio.to_thread(deployment.run, "./secrets.sh put secrets/pager.key < ~/pager.key")
        # What a lost store explains pages nobody a second time.
        await _fire("DocpreviewErrorBudgetBurnsFast", "DocpreviewNotListening")
        await receivers.until(2, 1)
        assert receivers.pages[-1]["routing_key"] == "another-routing-key"
        assert "DocpreviewErrorBudgetBurnsFast" not in json.dumps(receivers.pages)


EXPLAINED = {
    "DocpreviewStoreLost": {"DocpreviewReconciliationStuck", "DocpreviewErrorBudgetBurnsFast"},
    "DocpreviewRecordsFailing": {
        "DocpreviewReconciliationStuck",
        "DocpreviewErrorBudgetBurnsFast",
        "DocpreviewLimiterDegraded",
    },
}
"""Alerts of faults of the store, and those that follow from them."""


@pytest.mark.parametrize("cause", EXPLAINED)
async def test_a_fault_of_the_store_silences_what_follows_from_it_and_nothing_else(
    deployment: Deployment, cause: str
) -> None:
    """As Alertmanager itself says of each alert that fires."""
    need("prometheus-alertmanager")
    command = next(line for line in commands("Monitoring and alerts") if line.startswith("prometheus-alertmanager"))
    more = f" --web.listen-address=127.0.0.1:{PORTS['9093']} --cluster.listen-address= --storage.path=alerts"
    await asyncio.to_thread(deployment.start, command + more)
    explained = {alert for alerts in EXPLAINED.values() for alert in alerts}
    await _fire(*explained, "DocpreviewReloadRefused")
    assert await _silenced() == set()
    await _fire(cause)
    async with asyncio.timeout(PATIENCE):
        while await _silenced() != EXPLAINED[cause]:  # noqa: ASYNC110 - no event tells it
            await asyncio.sleep(0.1)


async def _silenced() -> set[str]:
    """The alerts that others inhibit."""
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.get(f"http://127.0.0.1:{PORTS['9093']}/api/v2/alerts")
        answer.raise_for_status()
    return {each["labels"]["alertname"] for each in answer.json() if each["status"]["inhibitedBy"]}


async def _fire(*names: str) -> None:
    """What Prometheus sends when these alerts fire."""
    alerts = [
        {
            "labels": {"alertname": rule["alert"], "job": "docpreview-gateway", **rule["labels"]},
            "annotations": rule["annotations"],
        }
        for rule in ALERTS
        if rule["alert"] in names
    ]
    async with httpx.AsyncClient(trust_env=False) as browser:
        answer = await browser.post(f"http://127.0.0.1:{PORTS['9093']}/api/v2/alerts", json=alerts)
        answer.raise_for_status()
