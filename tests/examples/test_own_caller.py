"""examples/production: a caller of one's own, by the steps of the README, and keys that no repository gets."""

from __future__ import annotations

import shutil
import stat
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from docpreview_emulator import Emulator
from docpreview_emulator.threaded import running
from tests.documents.blocks import run_by
from tests.examples.production import PATIENCE, PORTS, PRODUCTION, Deployment, commands, deployed, is_server
from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]

TEST = "tests/examples/test_own_caller.py::test_a_caller_of_ones_own_is_known_by_its_certificate_and_then_by_its_token"
SERVERS = [line for line in commands("From nothing to the first page") if is_server(line) and "emulator" not in line]
OPTIONS = "--server-name docpreview.example.com --ca callers/servers-ca.crt"
SHELL = [line for line in commands("From nothing to the first page") if line.startswith(("export", "gateway="))]


@pytest.fixture
def deployment(tmp_path: Path) -> Iterator[Deployment]:
    with running(Emulator(port=int(PORTS["8089"]))), deployed(tmp_path) as found:
        found.run("./secrets.sh make", "python issuer.py new-key 2026-11")
        yield found


def test_a_caller_of_ones_own_is_known_by_its_certificate_and_then_by_its_token(deployment: Deployment) -> None:
    """The parts of the policy that its reader writes are those of the README."""
    for server in SERVERS:
        deployment.start(server)
    certified, put, *checked, sleep, preview, make, usage = commands("A caller of your own")
    (part,) = [block.text for block in run_by(TEST) if block.language == "yaml"]
    policy, new = (deployment.folder / name for name in ("policy.yaml", "policy-new.yaml"))
    before = policy.read_text()
    deployment.run(certified)
    new.write_text(f"{before}\n{part}")
    said = deployment.run(put, *checked, sleep, *SHELL, preview)
    assert "invoices may call CreatePreviewJob" in said
    assert "warning: callers.invoices.budget" in said
    assert len(list((deployment.folder / "pages" / "invoices").glob("page-*.jpg"))) == 3
    hashed = deployment.run(make).strip()
    assert stat.S_IMODE((deployment.folder / "callers" / "invoices.token").stat().st_mode) == 0o600
    new.write_text(f"{before}\n{part.replace('spiffe: spiffe://example.com/invoices', f'token: {hashed}')}")
    said = deployment.run(put, sleep, *SHELL, usage)
    assert "invoices" in said
    # Its certificate alone is nobody's now.
    refused = deployment.run(*SHELL, "! " + usage.replace(" --token-file callers/invoices.token", ""))
    assert "UNAUTHENTICATED" in refused


def test_grpc_says_why_it_ends_a_connection_without_a_certificate_when_it_is_asked_to(deployment: Deployment) -> None:
    """By the variable and the file that the README names; the gateway's own log knows nothing of it."""
    why = "PEER_DID_NOT_RETURN_A_CERTIFICATE"
    readme = (PRODUCTION / "README.md").read_text()
    assert why in readme
    assert "`GRPC_VERBOSITY=info`\nin `replica-1.env`" in readme
    redis, first, _ = SERVERS
    deployment.start(redis)
    deployment.start(first)
    call = f"! docpreview --target ipv4:127.0.0.1:50051 {OPTIONS} usage"
    assert "UNAVAILABLE" in deployment.run(call)
    assert why not in deployment.log(first).read_text()
    with (deployment.folder / "replica-1.env").open("a") as file:
        file.write("GRPC_VERBOSITY=info\n")
    deployment.restart(1)
    deployment.run(call)
    deadline = time.monotonic() + PATIENCE
    while why not in deployment.log(first).read_text():
        assert time.monotonic() < deadline
        time.sleep(0.1)


def git(folder: Path, *words: str) -> list[str]:
    done = subprocess.run(["git", *words], cwd=folder, check=True, capture_output=True, text=True, timeout=60)  # noqa: S607
    return done.stdout.splitlines()


def test_git_takes_nothing_of_the_folder_that_was_made_in_it(deployment: Deployment) -> None:
    """The folder is a repository of its own, or in another one than this project's."""
    deployment.run("python issuer.py token web 2026-11 | ./secrets.sh put callers/web.token")
    deployment.run("docpreview-gateway token new --out callers/report.token", "touch redis-data/aof state-1/creates.db")
    git(deployment.folder, "init", "--quiet")
    git(deployment.folder, "add", "--all")
    given = {str(path.relative_to(PRODUCTION)) for path in PRODUCTION.rglob("*") if path.is_file()}
    rules = {f"rules/{path.name}" for path in (ROOT / "helm/docpreview-gateway/rules").iterdir()}
    assert set(git(deployment.folder, "ls-files")) == given | rules


def test_git_ignores_the_whole_folder_and_the_clouds_keys_in_a_checkout(tmp_path: Path) -> None:
    """By the names that the documents give them."""
    assert commands("From nothing to the first page")[0].endswith(" deployment")
    assert "cat > cloud.yaml" in (ROOT / "README.md").read_text()
    shutil.copy(ROOT / ".gitignore", tmp_path)
    (tmp_path / "deployment").mkdir()
    for name in ("deployment/gateway.yaml", "cloud.yaml", "other.yaml"):
        (tmp_path / name).write_text("secret")
    git(tmp_path, "init", "--quiet")
    git(tmp_path, "add", "--all")
    assert git(tmp_path, "ls-files") == [".gitignore", "other.yaml"]
