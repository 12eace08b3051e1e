"""examples/production: what `secrets.sh` and the other scripts do, and what they refuse."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from tests.examples.production import PRODUCTION, Deployment, commands, deployed
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CONTAINERS = 65532
"""User of the containers."""


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with deployed(tmp_path) as found:
        found.run("./secrets.sh make", "python issuer.py new-key 2026-11")
        yield found


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_shellcheck_finds_nothing() -> None:
    scripts = sorted(PRODUCTION.glob("*.sh"))
    assert len(scripts) == 3
    done = subprocess.run([need("shellcheck"), *scripts], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "")


def test_only_the_owner_can_read_what_it_makes(deployment: Deployment) -> None:
    made = [path for name in ("authorities", "secrets", "callers") for path in (deployment.folder / name).rglob("*")]
    assert len(made) > 20
    assert [str(path) for path in made if path.stat().st_mode & 0o077] == []


def test_a_second_time_it_makes_only_what_is_missing(deployment: Deployment) -> None:
    before = contents(deployment.folder)
    (deployment.folder / "callers" / "web.crt").unlink()
    deployment.run("./secrets.sh make")
    after = contents(deployment.folder)
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name] and "/authorities/" not in name}
    assert {name.rpartition("/")[2] for name in changed} == {"web.crt", "web.key"}


@pytest.mark.parametrize("words", ["", "mkae", "server", "server envoy", "new-authority", "make all", "caller"])
def test_a_wrong_command_is_answered_with_the_right_ones(deployment: Deployment, words: str) -> None:
    said = deployment.run(f"code=0; ./secrets.sh {words} || code=$?; echo $code")
    assert "usage: ./secrets.sh make" in said
    assert said.endswith("\n2\n")


def test_steps_of_a_ledger_key_are_refused_in_a_wrong_order(deployment: Deployment) -> None:
    """Replicas would not know each other's key."""
    file = deployment.folder / "secrets" / "ledger.key"
    first = file.read_text()
    assert "first ./secrets.sh new-ledger-key" in deployment.run("! ./secrets.sh use-ledger-key")
    deployment.run("./secrets.sh new-ledger-key")
    both = file.read_text()
    assert both.startswith(first)
    assert "first ./secrets.sh end-ledger-key" in deployment.run("! ./secrets.sh new-ledger-key")
    assert file.read_text() == both


def test_a_certificate_of_another_authority_is_not_revoked(deployment: Deployment) -> None:
    assert "is no certificate of these authorities" in deployment.run("! ./secrets.sh revoke secrets/gateway.crt")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_what_root_makes_belongs_to_the_owner_of_the_folder(deployment: Deployment) -> None:
    """The gateway, which runs as that owner, could not read it otherwise."""
    deployment.run(f"chown -R {CONTAINERS}:{CONTAINERS} secrets")
    deployment.run("./secrets.sh server gateway", "./secrets.sh new-ledger-key", "python issuer.py new-key 2026-12")
    owners = {path.name: path.stat().st_uid for path in (deployment.folder / "secrets").iterdir()}
    assert set(owners.values()) == {CONTAINERS}


def test_a_replaced_file_has_the_mode_of_the_one_before(deployment: Deployment) -> None:
    for name, mode in (("policy.yaml", 0o644), ("secrets/pager.key", 0o600), ("secrets/new.key", 0o600)):
        path = deployment.folder / name
        if path.exists():
            path.chmod(mode)
        deployment.run(f"echo new | ./secrets.sh put {name}")
        assert (path.read_text(), oct(path.stat().st_mode & 0o777)) == ("new\n", oct(mode))


def test_the_steps_towards_the_cloud_leave_a_valid_configuration(deployment: Deployment) -> None:
    """By the commands of the README: other keys, and no emulator."""
    for name in ("cloud-keys", "cloud-writer"):
        (deployment.home / f"{name}.yaml").write_text(f"secret_id: {name}\nsecret_key: example\n")
    deployment.run(*commands("With the cloud"))
    assert "secret_id: cloud-keys" in (deployment.folder / "secrets" / "cloud-keys.yaml").read_text()
    assert "ok: 1 bucket(s)" in deployment.run("./gateway.sh 1 check-config")
    assert not (deployment.folder / "emulator.env").exists()


def test_gateway_sh_says_which_replicas_there_may_be(deployment: Deployment) -> None:
    assert "usage: ./gateway.sh NUMBER" in deployment.run("! ./gateway.sh serve")
