"""examples/production: what `secrets.sh` and the other scripts do, and what they refuse."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.examples.production import PRODUCTION, Deployment, commands, deployed
from tests.programs import need

if TYPE_CHECKING:
    from collections.abc import Iterator

CONTAINERS = 65532
"""User of the containers."""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    with deployed(tmp_path_factory.mktemp("made")) as found:
        found.run("./secrets.sh make", "python issuer.py new-key 2026-11")
        yield found


@pytest.fixture
def deployment(tmp_path: Path, made: Deployment) -> Iterator[Deployment]:
    with deployed(tmp_path) as found:
        shutil.copytree(made.folder, found.folder, dirs_exist_ok=True)
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


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give files away")
def test_root_makes_nothing_that_the_owner_of_the_folder_cannot_go_on_with() -> None:
    as_owner = f"setpriv --reuid={CONTAINERS} --regid={CONTAINERS} --clear-groups ./secrets.sh"
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)  # the owner gets to it, which is not so with folders of pytest
        with deployed(Path(folder)) as fresh:
            fresh.run(f"chown -R {CONTAINERS}:{CONTAINERS} .")
            fresh.run("./secrets.sh make", "./secrets.sh new-authority clients", "./secrets.sh revocations")
            fresh.run(
                "python issuer.py new-key 2026-11", "python issuer.py token web 2026-11 | ./secrets.sh put web.token"
            )
            owners = {str(path): path.stat().st_uid for path in fresh.folder.rglob("*")}
            assert {path: owner for path, owner in owners.items() if owner != CONTAINERS} == {}
            for words in ("caller web", "caller archive", "revoke callers/web.crt", "end-authority clients"):
                fresh.run(f"{as_owner} {words}")


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
    assert "replica-3.env: is missing. Copy replica-1.env" in deployment.run("! ./gateway.sh 3 check-config")


def test_what_needs_secrets_says_how_they_are_made(tmp_path: Path) -> None:
    with deployed(tmp_path) as fresh:
        for command in (
            "./gateway.sh 1 check-config",
            "./secrets.sh server gateway",
            "python issuer.py new-key 2026-11",
        ):
            assert "./secrets.sh make" in fresh.run(f"! {command}")


@pytest.mark.parametrize(
    "command",
    [
        "python issuer.py token web WRONGKEY | ./secrets.sh put policy.yaml",
        "./secrets.sh put policy.yaml < /dev/null",
        "printf '\\n' | ./secrets.sh put secrets/cloud-keys.yaml",
        "echo text | ./secrets.sh put secrets",
    ],
)
def test_a_file_is_not_replaced_by_nothing(deployment: Deployment, command: str) -> None:
    before = contents(deployment.folder)
    deployment.run(f"! {command}")
    assert contents(deployment.folder) == before


def test_what_is_put_may_lie_beside_its_place(deployment: Deployment) -> None:
    """Also under the name that the new file might have until it is whole."""
    (deployment.folder / "policy.yaml.new").write_text("new\n")
    deployment.run("./secrets.sh put policy.yaml < policy.yaml.new")
    assert (deployment.folder / "policy.yaml").read_text() == "new\n"


@pytest.mark.parametrize("side", ["servers", "clients"])
def test_an_authority_in_use_is_not_replaced_a_second_time(deployment: Deployment, side: str) -> None:
    """Its certificates would be trusted no longer."""
    deployment.run(f"./secrets.sh new-authority {side}")
    before = contents(deployment.folder)
    assert f"first ./secrets.sh end-authority {side}" in deployment.run(f"! ./secrets.sh new-authority {side}")
    assert contents(deployment.folder) == before


@pytest.mark.parametrize(
    ("side", "certificates"),
    [("servers", ["server gateway", "server redis"]), ("clients", ["caller archive", "caller web"])],
)
def test_an_authority_is_not_ended_while_one_of_its_certificates_is_in_use(
    deployment: Deployment, side: str, certificates: list[str]
) -> None:
    assert "no authority is to be ended" in deployment.run(f"! ./secrets.sh end-authority {side}")
    deployment.run(f"./secrets.sh new-authority {side}")
    trusted = deployment.folder / "secrets" / f"{side}-ca.crt"
    both = trusted.read_text()
    for certificate in certificates:
        said = deployment.run(f"! ./secrets.sh end-authority {side}")
        assert f"/{certificate.split()[1]}.crt" in said
        assert trusted.read_text() == both
        deployment.run(f"./secrets.sh {certificate}")
    deployment.run(f"./secrets.sh end-authority {side}")
    assert both.startswith(trusted.read_text())
    assert not list((deployment.folder / "authorities").glob("*-before.*"))


def test_a_command_that_fails_leaves_what_is_trusted_as_it_was(deployment: Deployment) -> None:
    """Here the authority's own certificate cannot be read."""
    deployment.run(*(f"./secrets.sh {words}" for words in ("new-authority clients", "caller web", "caller archive")))
    certificate = deployment.folder / "authorities" / "clients.crt"
    certificate.unlink()
    certificate.mkdir()
    before = contents(deployment.folder)
    deployment.run("! ./secrets.sh end-authority clients")
    assert contents(deployment.folder) == before


MADE_AGAIN = (
    "secrets/servers-ca.crt",
    "secrets/clients-ca.crt",
    "secrets/clients.crl",
    "secrets/gateway.key",
    "secrets/redis.crt",
    "secrets/redis-users.acl",
    "secrets/redis-admin.password",
    "secrets/chat.url",
    "callers/servers-ca.crt",
    "callers/web.key",
)


def test_what_is_missing_or_empty_is_made_again(deployment: Deployment) -> None:
    url = (deployment.folder / "secrets" / "redis.env").read_text()
    for number, name in enumerate(MADE_AGAIN):
        path = deployment.folder / name
        path.write_text("") if number % 2 else path.unlink()
    deployment.run("./secrets.sh make")
    assert [name for name in MADE_AGAIN if not (deployment.folder / name).read_text()] == []
    deployment.run(
        "authorities='-CAfile secrets/clients-ca.crt -CRLfile secrets/clients.crl'",
        "openssl verify $authorities -crl_check callers/web.crt callers/archive.crt",
        "openssl verify -CAfile callers/servers-ca.crt secrets/gateway.crt secrets/redis.crt",
        'test "$(openssl x509 -pubkey -noout -in callers/web.crt)" = "$(openssl pkey -pubout -in callers/web.key)"',
    )
    assert (deployment.folder / "secrets" / "redis.env").read_text() == url


@pytest.mark.parametrize(
    ("name", "what_to_do"),
    [
        ("secrets/redis.env", "./secrets.sh new-redis-password"),
        ("secrets/redis-admin.password", "rm secrets/redis-users.acl, ./secrets.sh make"),
        ("authorities/clients.key", "bring it back from where you keep it"),
        ("authorities/clients.revoked", "bring it back from where you keep it"),
        ("authorities/servers.crt", "bring it back from where you keep it"),
    ],
)
def test_what_cannot_be_made_again_is_named(deployment: Deployment, name: str, what_to_do: str) -> None:
    """Another authority would lock all callers out, and Redis has no more than hashes of passwords."""
    (deployment.folder / name).unlink()
    before = contents(deployment.folder)
    said = deployment.run("! ./secrets.sh make")
    assert f"{name}: is missing" in said
    assert what_to_do in said
    assert contents(deployment.folder) == before


@pytest.mark.parametrize("name", ["servers-ca", "a/b", "../web", ".web", "web,URI:spiffe://example.com/archive"])
def test_a_caller_has_a_name_of_its_own(deployment: Deployment, name: str) -> None:
    before = contents(deployment.folder)
    assert "is no name of a caller" in deployment.run(f"! ./secrets.sh caller {name}")
    assert contents(deployment.folder) == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("new-key 2026-11", "is there already"),
        ("end-key 2026-11", "is the only key"),
        ("end-key 2026-12", "It has: 2026-11"),
        ("token web 2026-12", "It has: 2026-11"),
        ("new-key a/b", "is no name of a key"),
        ("token web 2026-11 > /dev/full", "No space left on device"),
    ],
)
def test_the_issuer_refuses_what_it_cannot_do(deployment: Deployment, words: str, said: str) -> None:
    before = contents(deployment.folder)
    answer = deployment.run(f"! python issuer.py {words}")
    assert said in answer
    assert "Traceback" not in answer
    assert contents(deployment.folder) == before


@pytest.mark.parametrize("text", ["", "{}", '{"keys": 1}', '{"keys": ["text"]}'])
def test_the_issuer_replaces_no_file_that_is_no_jwks(deployment: Deployment, text: str) -> None:
    file = deployment.folder / "secrets" / "jwks.json"
    file.write_text(text)
    said = deployment.run("! python issuer.py new-key 2026-12")
    assert "is no JWKS" in said
    assert "Traceback" not in said
    assert file.read_text() == text
