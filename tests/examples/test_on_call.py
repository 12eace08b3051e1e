"""docs/runbooks/README.md: what runbooks read like on one machine, run beside the replicas of examples/production."""

from __future__ import annotations

import json
import re
import uuid
from typing import TYPE_CHECKING

import pytest

from docpreview_client import DocPreviewError
from tests.examples.callers import client
from tests.examples.production import ADMIN, BUCKET, PORTS, Deployment, deployed
from tests.examples.production import commands as of_production
from tests.monitoring.runbooks import commands
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

JOURNALCTL = """#!/bin/sh
[ "$*" = "-o cat -u docpreview-gateway@* --since=-10m" ] && cat ../*-serve.log
"""
"""In the place of the journal of a machine whose init is systemd: the log of one replica after the other."""


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    """Both replicas with all that is behind and beside them, on ports of their own."""
    for program in ("jq", "curl", "promtool", "prometheus"):
        need(program)
    with deployed(tmp_path) as found:
        found.run("./secrets.sh make", "python issuer.py new-key 2026-11")
        journalctl = found.home / "journalctl"
        journalctl.write_text(JOURNALCTL)
        journalctl.chmod(0o755)
        prometheus = found.folder / "prometheus.yml"
        prometheus.write_text(prometheus.read_text().replace("15s", "1s"))
        (scraping,) = (each for each in of_production("Monitoring and alerts") if each.startswith("prometheus --"))
        for command in ("redis-server redis.conf", "docpreview-emulator serve --port 8089"):
            found.start(command)
        for number in ADMIN:
            found.start(f"./gateway.sh {number} serve")
        found.start(f"{scraping} --web.listen-address=127.0.0.1:{PORTS['9090']} --storage.tsdb.path=../prometheus")
        yield found


def look(deployment: Deployment) -> dict[str, str]:
    """What each command prints; some end with an error, as they have found one."""
    said: dict[str, str] = {}
    setting = ["PATH=$HOME:$PATH"]
    for command in commands("README", "On one machine"):
        here = command.replace("cd /srv/docpreview", "cd .")
        if here.startswith(("cd ", "export ")):
            setting.append(here)
        else:
            said[command] = deployment.run(*setting, f"{here} || true")
    return said


def test_the_commands_of_runbooks_for_one_machine_show_what_is_wrong_there(deployment: Deployment) -> None:
    """Nothing, at first. Then the memory of Redis is full, and both replicas refuse creates."""
    well = look(deployment)
    assert "PROBLEM" not in "".join(well.values())
    probed = [text for command, text in well.items() if "readyz" in command]
    assert len(probed) == len(ADMIN)
    assert all(text.startswith("ready\n") and "records ok\n" in text for text in probed)
    with client(deployment.folder / "callers", "archive") as caller:
        document = deployment.checkout / "examples" / "seven-pages.pdf"
        caller.upload(document.read_bytes(), BUCKET, object="archive/a.pdf")
        deployment.run("./redis-admin.sh CONFIG SET maxmemory 1")
        for _ in range(4):
            output = f"previews/archive/{uuid.uuid4()}/${{Number}}.jpg"
            with pytest.raises(DocPreviewError) as caught:
                caller.create(BUCKET, "archive/a.pdf", output_object=output, timeout=2)
            assert "LEDGER_UNAVAILABLE" in str(caught.value)
    ill = look(deployment)
    shown = "".join(ill.values())
    assert "PROBLEM" in ill["./gateway.sh 1 doctor"]
    assert re.search("^maxmemory:1\r?$", ill["./redis-admin.sh INFO memory"], re.MULTILINE)
    assert all("records failing" in text for command, text in ill.items() if "readyz" in command)
    assert "budget admits 20000 pages a day" in shown
    (log,) = (text for command, text in ill.items() if command.startswith("journalctl"))
    lines = [json.loads(line) for line in log.splitlines()]
    times = [line["timestamp"] for line in lines]
    assert len(lines) >= 4
    assert times == sorted(times)
    assert {line["reason"] for line in lines} == {"LEDGER_UNAVAILABLE"}
