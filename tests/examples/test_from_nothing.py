"""examples/production: the commands of its README lead from nothing to pages of a document, for two callers."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from tests.examples.deployment import ADMIN, Deployment, commands, deployed, is_server

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
            deployment.run(command)
    said = deployment.run(*calls)
    assert "warning" not in said
    assert "PROBLEM" not in said
    for caller in ("web", "archive"):
        assert len(list((deployment.folder / "pages" / caller).glob("page-*.jpg"))) == 7
    assert re.search(r"archive +day +", said)
    for options, hint in MISTAKES.items():
        said = deployment.run(f"{EXPORTS}\n! docpreview {options} usage")
        assert hint in said
    # Nothing is amiss at a start: the log has no line above INFO, and no secret.
    secrets = [path.read_text().strip() for path in (deployment.folder / "secrets").iterdir() if path.suffix != ".acl"]
    for number in ADMIN:
        log = deployment.log(f"./gateway.sh {number} serve").read_text()
        assert not re.search('"level": ?"(warning|error)"', log), log
        assert not [secret for secret in secrets if secret in log]
        deployment.stop(f"./gateway.sh {number} serve")
