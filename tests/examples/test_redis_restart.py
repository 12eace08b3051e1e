"""examples/production: its Redis is shut down and started again, and no record of a create is lost."""

from __future__ import annotations

import re
import time
import uuid
from typing import TYPE_CHECKING

import httpx
import pytest

from docpreview_emulator import Emulator
from docpreview_emulator.threaded import running
from tests.examples.callers import client
from tests.examples.production import ADMIN, BUCKET, PATIENCE, PORTS, PRODUCTION, Deployment, commands, deployed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DOCUMENT = (PRODUCTION.parent / "seven-pages.pdf").read_bytes()
REDIS = next(command for command in commands("From nothing to the first page") if command.startswith("redis-server"))
GATEWAY = "./gateway.sh 1 serve"
BEFORE = ("user default off\n", "+info +config|get\n")
"""Ends of lines of the file of users that folders have which were made by an earlier `secrets.sh`."""

LOST = "NOPERM"
WELL = "ready\ncloud ok\nrecords ok"
*MENDING, RESTART = commands("A folder that was made before")[:5]
GOING_ON = commands("A folder that was made before")[5:]
REQUEST_ID = str(uuid.uuid4())


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with running(Emulator(port=int(PORTS["8089"]))), deployed(tmp_path) as found:
        found.run("./secrets.sh make", "python issuer.py new-key 2026-11")
        yield found


def as_made_before(deployment: Deployment) -> None:
    path = deployment.folder / "secrets" / "redis-users.acl"
    text = re.sub("^user default .*\n", BEFORE[0], path.read_text(), flags=re.MULTILINE)
    path.write_text(text.replace("+info +config|get +acl|dryrun\n", BEFORE[1]))


def previewed(deployment: Deployment) -> str:
    """The id of a job of seven pages that has ended."""
    with client(deployment.folder / "callers", "archive") as caller:
        caller.upload(DOCUMENT, BUCKET, object="archive/one.pdf")
        job = caller.create(
            BUCKET, "archive/one.pdf", output_object="previews/archive/${Number}.jpg", request_id=REQUEST_ID
        )
        return caller.wait(BUCKET, job.job_id).job_id


def used(deployment: Deployment) -> int:
    """Pages of the day that are counted for the caller, once none is reserved: up to a minute after the job's end."""
    deadline = time.monotonic() + 60 + PATIENCE
    while True:
        with client(deployment.folder / "callers", "archive") as caller:
            day = caller.usage().day
        if not day.reserved_pages:
            return int(day.used_pages)
        assert time.monotonic() < deadline, day
        time.sleep(0.2)


def restart(deployment: Deployment) -> str:
    """What Redis writes while it is shut down and started again, by the commands of the README."""
    assert RESTART == "systemctl restart docpreview-redis"
    log = deployment.log(REDIS)
    before = len(log.read_text())
    deployment.run("./redis-admin.sh SHUTDOWN")
    assert deployment.servers.pop(REDIS).wait(PATIENCE) == 0
    written = log.read_text()[before:]
    log.write_text("")
    deployment.start(REDIS)
    return written + log.read_text()


def until_says(words: str) -> None:
    """Wait until `/readyz?verbose` has these words."""
    deadline = time.monotonic() + PATIENCE
    with httpx.Client(trust_env=False) as browser:
        while words not in (said := browser.get(f"http://127.0.0.1:{ADMIN[1]}/readyz?verbose").text):
            assert time.monotonic() < deadline, said
            time.sleep(0.2)


def test_redis_is_shut_down_and_started_again_and_no_record_is_lost(deployment: Deployment) -> None:
    deployment.start(REDIS)
    deployment.start(GATEWAY)
    job, pages = previewed(deployment), used(deployment)
    assert pages == 7
    assert LOST not in restart(deployment)
    until_says(WELL)
    # A repeated create is the job that it was, and its pages are counted once.
    assert (previewed(deployment), used(deployment)) == (job, pages)
    assert "lost records" not in deployment.log(GATEWAY).read_text()
    assert "PROBLEM" not in deployment.run("./gateway.sh 1 doctor")


def test_nobody_can_use_redis_without_a_password(deployment: Deployment) -> None:
    """Although the user `default`, whom connections begin as, has all rights."""
    deployment.start(REDIS)
    command = "redis-cli --tls --cacert secrets/servers-ca.crt -p 6379"
    for words in ("PING", "GET docpreview:x", "ACL LIST"):
        assert "NOAUTH" in deployment.run(f"{command} {words} 2>&1 || true")
    for password in ("''", "default", "nopass"):
        assert "WRONGPASS" in deployment.run(f"{command} AUTH default {password} 2>&1 || true")
    deployment.run("./redis-admin.sh ACL SAVE")
    assert "user default off" in (users := (deployment.folder / "secrets" / "redis-users.acl").read_text())
    assert "nopass" not in users


def test_a_folder_made_before_loses_nothing_once_its_users_are_mended(deployment: Deployment) -> None:
    """Before that `doctor` warns: its user of Redis may not ask what a restart would lose."""
    as_made_before(deployment)
    deployment.start(REDIS)
    deployment.start(GATEWAY)
    job = previewed(deployment)
    assert "not known whether a restart loses records" in deployment.run("./gateway.sh 1 doctor")
    assert "a restart loses records" in deployment.run(
        "./redis-admin.sh ACL SETUSER docpreview '+acl|dryrun'", "! ./gateway.sh 1 doctor"
    )
    said = deployment.run(*MENDING)
    assert "PROBLEM" not in said
    assert "neither evicts keys nor forgets them when it restarts" in said
    assert LOST not in restart(deployment)
    until_says(WELL)
    assert previewed(deployment) == job


def test_records_that_a_restart_left_out_come_back_when_the_users_are_mended(deployment: Deployment) -> None:
    """They are still in Redis' files."""
    as_made_before(deployment)
    deployment.start(REDIS)
    deployment.start(GATEWAY)
    job = previewed(deployment)
    assert LOST in restart(deployment)
    until_says("lost records")
    deployment.run(*MENDING[:3])
    assert LOST not in restart(deployment)
    status, accept = GOING_ON
    # It ends with an error while records are lost.
    assert "records: 1" in deployment.run(f"! {status}")
    deployment.run(accept)
    until_says(WELL)
    assert previewed(deployment) == job
