"""examples/production: the commands of its README lead from nothing to pages of a document, for two callers."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from tests.examples.production import ADMIN, PATIENCE, PORTS, Deployment, commands, deployed, is_server

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

BEGINNING = "From nothing to the first page"
INSTALLING = {
    "python3 -m venv deployment/.venv",
    'deployment/.venv/bin/pip install ./protos "./clients/python[cli]" ".[emulator]"',
    "cd deployment",
    ". .venv/bin/activate",
}
"""Commands that are not run, since the tests' environment has these packages; tests/installs installs them."""

EXPORTS = next(command for command in commands(BEGINNING) if command.startswith("export"))
_NAME, _CA, _PAIR = (
    "--server-name docpreview.example.com",
    "--ca callers/servers-ca.crt",
    "--cert callers/archive.crt --key callers/archive.key",
)
MISTAKES = {
    f"{_NAME} {_CA}": "--cert and --key where it asks",
    f"{_CA} {_PAIR}": "give one of its names as --server-name",
    f"{_NAME} {_PAIR}": "as --ca",
    f"{_NAME} {_CA} --cert callers/web.crt --key callers/archive.key": "Check that --key is the key of --cert",
    f"{_NAME} {_CA} --cert callers/web.crt --key callers/web.key": "Give a valid token (--token-file)",
    "": "A gateway with TLS needs --tls or --ca",
}
"""Connections that callers get wrong in their first hour, and what they read then."""


def assert_prometheus_scrapes_both(deployment: Deployment) -> None:
    """By the command of the README, with flags for a port and a folder of its own, and more often."""
    path = deployment.folder / "prometheus.yml"
    path.write_text(path.read_text().replace("15s", "1s"))
    command = next(line for line in commands("Monitoring and alerts") if line.startswith("prometheus --"))
    deployment.start(f"{command} --web.listen-address=127.0.0.1:{PORTS['9090']} --storage.tsdb.path=../prometheus")
    deadline = time.monotonic() + PATIENCE
    found: dict[str, str] = {}
    while set(found.values()) != {"up"}:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)
        found = {each["scrapeUrl"]: each["health"] for each in asked("targets")["activeTargets"]}
    assert len(found) == len(ADMIN)
    groups = asked("rules")["groups"]
    assert {rule["name"] for group in groups for rule in group["rules"]} >= {"DocpreviewBreakerOpen"}


def asked(what: str) -> dict[str, Any]:
    """What Prometheus says."""
    with httpx.Client(trust_env=False) as browser:
        answer = browser.get(f"http://127.0.0.1:{PORTS['9090']}/api/v1/{what}").raise_for_status()
    data: dict[str, Any] = answer.json()["data"]
    return data


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path) as found:
        yield found


def test_the_commands_of_the_readme_end_with_pages_of_a_document(deployment: Deployment) -> None:
    """Each of them succeeds, in the order in which they stand."""
    calls = []
    for command in commands(BEGINNING)[2:]:
        if command in INSTALLING:
            continue
        if is_server(command):
            deployment.start(command)
        elif deployment.servers:
            calls.append(command)
        else:
            assert "warning" not in deployment.run(command)
    said = deployment.run(*calls)
    assert "PROBLEM" not in said
    for caller in ("web", "archive"):
        assert len(list((deployment.folder / "pages" / caller).glob("page-*.jpg"))) == 7
    assert re.search(r"archive +day +", said)
    for options, hint in MISTAKES.items():
        said = deployment.run(f"{EXPORTS}\n! docpreview {options} usage")
        assert hint in said
    assert_prometheus_scrapes_both(deployment)
    # Nothing is amiss: the log has no line above INFO, and no secret. A busy machine may be slow.
    secrets = [path.read_text().strip() for path in (deployment.folder / "secrets").iterdir() if path.suffix != ".acl"]
    for number in ADMIN:
        log = deployment.log(f"./gateway.sh {number} serve").read_text()
        lines = [line for line in log.splitlines() if "no answer in time" not in line]
        assert not re.search('"level": ?"(warning|error)"', "\n".join(lines)), log
        assert not [secret for secret in secrets if secret in log]
        deployment.stop(f"./gateway.sh {number} serve")
