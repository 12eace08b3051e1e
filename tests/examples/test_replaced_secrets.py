"""examples/production: each secret is replaced by the commands of its README while calls go on, and none fails.

After the last command only the new one is good for anything.
"""

from __future__ import annotations

import re
import socket
import ssl
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from docpreview_client import BlockingClient, DocPreviewError, NotFound, Unauthenticated, Unavailable
from docpreview_emulator import Credential, Emulator
from docpreview_emulator.model import DEFAULT_CREDENTIAL
from docpreview_emulator.threaded import running
from tests.examples.callers import TARGET, Calls, certified, client
from tests.examples.production import (
    BUCKET,
    PATIENCE,
    PORTS,
    PRODUCTION,
    Deployment,
    commands,
    deployed,
    sections,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

DOCUMENT = (PRODUCTION.parent / "seven-pages.pdf").read_bytes()
NEW_KEY = Credential("example-second-id", "EXAMPLEsecondKEY00000000000000000")


@pytest.fixture(scope="module")
def cloud() -> Iterator[Emulator]:
    """Jobs are made, and wait: nothing is rendered."""
    with running(Emulator(port=PORTS["8089"], credentials=[DEFAULT_CREDENTIAL, NEW_KEY])) as emulator:
        emulator.hold_jobs()
        yield emulator


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory, cloud: Emulator) -> Iterator[Deployment]:
    """Redis and both replicas, which run on from one test to the next."""
    assert cloud.port
    with deployed(tmp_path_factory.mktemp("checkout")) as found:
        found.run("./secrets.sh make", "python issuer.py new-key 2026-11")
        found.run("python issuer.py token web 2026-11 | ./secrets.sh put callers/web.token")
        for server in ("redis-server redis.conf", "./gateway.sh 1 serve", "./gateway.sh 2 serve"):
            found.start(server)
        yield found


@pytest.fixture
def calls(deployment: Deployment) -> Iterator[Calls]:
    with Calls(deployment.folder / "callers", DOCUMENT) as found:
        yield found
    assert not found.failures


def shown(port: str, deployment: Deployment) -> bytes:
    """The certificate that a server shows to a caller who trusts the authorities of now."""
    folder = deployment.folder / "callers"
    context = ssl.create_default_context(cafile=str(folder / "servers-ca.crt"))
    context.load_cert_chain(folder / "archive.crt", folder / "archive.key")
    with (
        socket.create_connection(("127.0.0.1", PORTS[port]), timeout=PATIENCE) as connection,
        context.wrap_socket(connection, server_hostname="localhost") as secured,
    ):
        certificate = secured.getpeercert(binary_form=True)
        assert certificate
        return certificate


def until_shown(port: str, deployment: Deployment, file: str) -> None:
    """Wait until the server shows the certificate of the file."""
    wanted = ssl.PEM_cert_to_DER_cert((deployment.folder / "secrets" / file).read_text())
    deadline = time.monotonic() + PATIENCE
    while shown(port, deployment) != wanted:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def refused(caller: BlockingClient) -> type[DocPreviewError] | None:
    """The class of the error of a call; None: the gateway knows the caller."""
    with caller:
        try:
            caller.get(BUCKET, "d1", timeout=PATIENCE)
        except NotFound:
            return None
        except DocPreviewError as error:
            return type(error)
    return None


def until_refused(make: Callable[[], BlockingClient], expected: type[DocPreviewError]) -> None:
    deadline = time.monotonic() + PATIENCE
    while (found := refused(make())) is not expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.2)


def test_certificate_of_the_gateway(deployment: Deployment, calls: Calls) -> None:
    before = shown("50051", deployment)
    deployment.follow("Certificate of the gateway")
    for port in ("50051", "50052"):
        until_shown(port, deployment, "gateway.crt")
    assert shown("50051", deployment) != before
    calls.go_on()


def test_certificate_of_redis(deployment: Deployment, calls: Calls) -> None:
    before = shown("6379", deployment)
    deployment.follow("Certificate of Redis")
    until_shown("6379", deployment, "redis.crt")
    assert shown("6379", deployment) != before
    calls.go_on()


def test_authority_of_the_servers(deployment: Deployment, calls: Calls) -> None:
    deployment.follow("Authority of the servers")
    assert (deployment.folder / "callers" / "servers-ca.crt").read_text().count("BEGIN CERTIFICATE") == 1
    for port, file in (("50051", "gateway.crt"), ("50052", "gateway.crt"), ("6379", "redis.crt")):
        until_shown(port, deployment, file)
    calls.go_on()


def test_authority_of_the_callers(deployment: Deployment, calls: Calls) -> None:
    old = certified(deployment.folder / "callers", "archive")
    deployment.follow("Authority of the callers")
    until_refused(lambda: client(deployment.folder / "callers", "archive", tls=old), Unavailable)
    calls.go_on()


def test_certificate_of_a_caller(deployment: Deployment, calls: Calls) -> None:
    old = certified(deployment.folder / "callers", "archive")
    deployment.follow("Certificate of a caller")
    until_refused(lambda: client(deployment.folder / "callers", "archive", tls=old), Unauthenticated)
    calls.go_on()


def test_keys_of_the_issuer(deployment: Deployment, calls: Calls) -> None:
    old = (deployment.folder / "callers" / "web.token").read_text().strip()
    deployment.follow("Keys of the issuer")
    until_refused(lambda: client(deployment.folder / "callers", "web", token=old), Unauthenticated)
    calls.go_on()


def test_static_token(deployment: Deployment, calls: Calls) -> None:
    """The policies that the README has its reader write are written here."""
    callers, policy = deployment.folder / "callers", (deployment.folder / "policy.yaml").read_text()
    make, *puts = commands("Static token")
    tokens = []
    for _ in range(2):
        hashed = deployment.run(make).strip()
        tokens.append((callers / "report-new.token").read_text().strip())
        before = "".join(re.findall("^ *- token: .*\n", policy, re.MULTILINE))
        line = f"      - token: {hashed}\n"
        (deployment.folder / "policy-with-both.yaml").write_text(policy.replace(before, before + line))
        policy = policy.replace(before, line)
        (deployment.folder / "policy-with-new.yaml").write_text(policy)
        for command in puts:
            deployment.run(command)
            calls.go_on()
    tls = certified(callers, "web")
    until_refused(lambda: BlockingClient(TARGET, tls=tls, token=tokens[0]), Unauthenticated)
    assert refused(BlockingClient(TARGET, tls=tls, token=tokens[1])) is None


def test_keys_of_the_cloud(deployment: Deployment, calls: Calls, cloud: Emulator) -> None:
    for name in ("cloud-keys", "cloud-writer"):
        (deployment.home / f"{name}.yaml").write_text(
            f"secret_id: {NEW_KEY.secret_id}\nsecret_key: {NEW_KEY.secret_key}\n"
        )
    deployment.follow("Keys of the cloud")
    deadline = time.monotonic() + PATIENCE
    used = {DEFAULT_CREDENTIAL.secret_id}
    while used != {NEW_KEY.secret_id}:
        assert time.monotonic() < deadline
        cloud.clear_requests()
        calls.go_on()
        used = set(
            re.findall("q-ak=([^&]*)", " ".join(record.headers.get("authorization", "") for record in cloud.requests))
        )
    del cloud.credentials[DEFAULT_CREDENTIAL.secret_id]
    calls.go_on()
    with client(deployment.folder / "callers", "web") as caller:
        caller.upload(DOCUMENT, BUCKET, object=f"in/{uuid.uuid4()}.pdf")


def test_passwords_of_redis(deployment: Deployment, calls: Calls) -> None:
    def password() -> str:
        text = (deployment.folder / "secrets" / "redis.env").read_text()
        return text.partition("docpreview:")[2].partition("@")[0]

    def answer(user: str, password: str) -> str:
        return deployment.run(
            f"REDISCLI_AUTH={password} redis-cli --tls --cacert secrets/servers-ca.crt -p 6379 --user {user} "
            "--no-auth-warning GET docpreview:x 2>&1 || true"
        )

    admins = deployment.folder / "secrets" / "redis-admin.password"
    before, admin = password(), admins.read_text().strip()
    assert "WRONGPASS" not in answer("docpreview", before) + answer("admin", admin)
    deployment.follow("Passwords of Redis")
    assert "WRONGPASS" in answer("docpreview", before)
    assert "WRONGPASS" in answer("admin", admin)
    assert "WRONGPASS" not in answer("docpreview", password()) + answer("admin", admins.read_text().strip())
    calls.go_on()
    # Redis has written them to its file, with which it starts the next time.
    users = (deployment.folder / "secrets" / "redis-users.acl").read_text()
    assert users == deployment.run("./redis-admin.sh ACL LIST")


def test_ledger_key(deployment: Deployment, calls: Calls) -> None:
    """A create that is repeated in between, and at the end, is the job that it was."""
    callers, key, file = (
        deployment.folder / "callers",
        f"in/{uuid.uuid4()}.pdf",
        deployment.folder / "secrets/ledger.key",
    )
    request_id = str(uuid.uuid4())

    def created(caller: BlockingClient) -> str:
        return caller.create(BUCKET, key, output_object="out/${Number}.jpg", request_id=request_id).job_id

    with client(callers, "web") as caller:
        caller.upload(DOCUMENT, BUCKET, object=key)
        job = created(caller)
    old = file.read_text()
    deployment.follow("Ledger key")
    assert file.read_text().endswith(old)
    assert file.read_text() != old
    with client(callers, "web") as caller:
        assert created(caller) == job
    calls.go_on()
    deployment.run("./secrets.sh end-ledger-key")
    assert old not in file.read_text()
    assert "with 1 secret" in deployment.run("./gateway.sh 1 doctor || true")


def test_keys_of_the_receivers_of_alerts(deployment: Deployment) -> None:
    """tests/examples/test_alert_routes.py has Alertmanager read them."""
    for name in ("pager.key", "chat.url"):
        (deployment.home / name).write_text(f"new {name}")
    deployment.follow("Keys of the receivers of alerts")
    for name in ("pager.key", "chat.url"):
        path = deployment.folder / "secrets" / name
        assert (path.read_text(), oct(path.stat().st_mode & 0o777)) == (f"new {name}", "0o600")


def test_every_section_of_the_readme_has_a_test_here() -> None:
    """Another secret comes with another test."""
    tests = re.findall(r"follow\(\"(.*)\"\)|commands\(\"(.*)\"\)", Path(__file__).read_text())
    assert {first or second for first, second in tests} - {"(.*)"} == set(sections())
