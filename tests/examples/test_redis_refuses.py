"""examples/production: no file of the folder changes, and no password is lost, where Redis refuses a new one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.examples.production import Deployment, deployed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

COMMANDS = ("new-redis-password", "end-redis-password", "admin-password")
FILES = ("redis.env", "redis-admin.password")


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path) as found:
        found.run("./secrets.sh make")
        found.start("redis-server redis.conf")
        yield found


def passwords(deployment: Deployment) -> dict[str, str]:
    """What the files have."""
    return {name: (deployment.folder / "secrets" / name).read_text() for name in FILES}


def assert_valid(deployment: Deployment) -> None:
    """Redis takes the passwords of the files."""
    gateways = passwords(deployment)["redis.env"].partition("docpreview:")[2].partition("@")[0]
    said = deployment.run(
        "./redis-admin.sh PING",
        f"REDISCLI_AUTH={gateways} redis-cli -e --tls --cacert secrets/servers-ca.crt -p 6379 --user docpreview PING",
    )
    assert said.count("PONG") == len(FILES)


@pytest.mark.parametrize("command", COMMANDS)
def test_without_the_password_of_the_administrator(deployment: Deployment, command: str) -> None:
    admins = deployment.folder / "secrets" / "redis-admin.password"
    right = admins.read_text()
    admins.write_text("wrong\n")
    before = passwords(deployment)
    assert "WRONGPASS" in deployment.run(f"! ./secrets.sh {command}")
    assert passwords(deployment) == before
    admins.write_text(right)
    assert_valid(deployment)


@pytest.mark.parametrize("command", COMMANDS)
def test_where_redis_cannot_write_its_file(deployment: Deployment, command: str) -> None:
    """And once it can, the same command does what it is for."""
    users = deployment.folder / "secrets" / "redis-users.acl"
    aside = users.rename(users.with_suffix(".aside"))
    users.mkdir()
    before = passwords(deployment)
    assert "Redis refused to change the user" in deployment.run(f"! ./secrets.sh {command}")
    assert passwords(deployment) == before
    assert_valid(deployment)
    users.rmdir()
    aside.rename(users)
    deployment.run(f"./secrets.sh {command}")
    assert_valid(deployment)
    assert users.read_text() == deployment.run("./redis-admin.sh ACL LIST")


def test_a_password_that_redis_does_not_know_does_not_become_the_only_one(deployment: Deployment) -> None:
    file = deployment.folder / "secrets" / "redis.env"
    right = file.read_text()
    refusals = {
        "URL=rediss://docpreview:wrong@localhost:6379/0\n": "Redis does not take the password of secrets/redis.env",
        "URL=rediss://localhost:6379/0\n": "secrets/redis.env: has no password",
    }
    for wrong, refusal in refusals.items():
        file.write_text(wrong)
        assert refusal in deployment.run("! ./secrets.sh end-redis-password")
    file.write_text(right)
    assert_valid(deployment)


def test_a_lost_password_of_the_gateways_is_replaced(deployment: Deployment) -> None:
    """As `make` says."""
    (deployment.folder / "secrets" / "redis.env").unlink()
    assert "./secrets.sh new-redis-password" in deployment.run("! ./secrets.sh make")
    deployment.run("./secrets.sh new-redis-password", "./secrets.sh make", "./secrets.sh end-redis-password")
    assert_valid(deployment)


def test_a_command_of_the_administrator_that_fails_is_seen_by_its_exit_status(deployment: Deployment) -> None:
    assert "ERR" in deployment.run("! ./redis-admin.sh CONFIG SET tls-cert-file ../secrets/nothing.crt")
