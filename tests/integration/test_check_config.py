"""`check-config` refuses what `serve` would not start with, in the same words, and nothing else."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trustme
from typer.testing import CliRunner

from docpreview_emulator import Emulator
from docpreview_gateway.__main__ import app
from docpreview_gateway.wiring.gateway import Gateway
from tests.edge_process import free_port
from tests.integration.conftest import BUCKET, REGION, settings

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

KEYS = {"secret_id": "an-id", "secret_key": "a-key"}
POLICY = "version: 1\ncallers: {shop: {identities: [{dns: shop.example}], methods: [GetPreviewJob]}}\n"
REDIS = {"namespace": "docs", "url": "redis://127.0.0.1:1"}
HERE = "127.0.0.1"

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good and bad files: certificates of a test CA, texts, and state that cannot be used."""
    folder = tmp_path_factory.mktemp("files")
    authority = trustme.CA()
    authority.cert_pem.write_to_path(folder / "ca.pem")
    for name in ("one", "other"):
        issued = authority.issue_cert("localhost")
        issued.private_key_pem.write_to_path(folder / f"{name}.key")
        issued.cert_chain_pems[0].write_to_path(folder / f"{name}.pem")
    texts = {"junk": b"\xff\x00junk", "empty": b"", "text": b"x", "jwks": b"{}", "policy.yaml": POLICY.encode()}
    twice = {"twice.yaml": b"secret_id: a\nsecret_key: b\nsecret_key: c\n", "ledger.key": b"k" * 40}
    for name, text in (texts | twice).items():
        (folder / name).write_bytes(text)
    for name in ("creates.db", "journal.db", "ledger.db", "ledger.key"):
        (folder / f"bad-{name}").mkdir()
        (folder / f"bad-{name}" / name).write_bytes(b"junk")
    (folder / "folder-for-file" / "creates.db").mkdir(parents=True)
    (folder / "dangling").symlink_to(folder / "nothing")
    return folder


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator() as running:
        yield running


@pytest.fixture(scope="module")
def taken() -> Iterator[int]:
    """A port in use."""
    with socket.create_server((HERE, 0)) as server:
        yield server.getsockname()[1]


def tls(**names: str) -> dict[str, Any]:
    return {"tls": {"certificate": "/F/one.pem", "key": "/F/one.key", "client_ca": "/F/ca.pem"} | names}


def jwt(**source: str) -> dict[str, Any]:
    issuer = {"issuer": "https://idp.example", "audience": "docpreview", **source}
    return {"auth": {"jwt": [issuer]}, "policy": {"file": "/F/policy.yaml"}, **tls()}


def redis(url: str) -> dict[str, Any]:
    return {"shared_state": REDIS | {"url": url}, "ledger": {"key_file": "/F/ledger.key"}}


BROKEN: dict[str, dict[str, Any]] = {
    "one port for both": {"listen": f"{HERE}:50051", "admin_listen": f"{HERE}:50051"},
    "an address of another machine": {"listen": "192.0.2.1:50051", "auth": "insecure"},
    "an admin address of another machine": {"admin_listen": "192.0.2.1:9464"},
    "an address by a name that nobody has": {"listen": "nobody.invalid:50051", "auth": "insecure"},
    "an IPv6 address without brackets": {"listen": "::1:0"},
    "a file for the state": {"state_dir": "/F/text"},
    "state below a file": {"state_dir": "/F/text/state"},
    "state in a folder that cannot be made": {"state_dir": "/proc/docpreview"},
    "a link to nothing for the state": {"state_dir": "/F/dangling"},
    "state below a link to nothing": {"state_dir": "/F/dangling/state"},
    "state with a name that is too long": {"state_dir": "/F/" + "x" * 300},
    "a store that is no database": {"state_dir": "/F/bad-creates.db"},
    "a folder for the store": {"state_dir": "/F/folder-for-file"},
    "a journal that is no database": {"state_dir": "/F/bad-journal.db"},
    "a short secret in the state": {"state_dir": "/F/bad-ledger.key"},
    "an old ledger that is no database": {"state_dir": "/F/bad-ledger.db"},
    "no key file": {"ledger": {"key_file": "/F/none"}},
    "no credential file": {"credentials": {"main": {"file": "/F/none"}}},
    "a folder of credentials": {"credentials": {"main": {"file": "/F"}}},
    "credentials with a key twice": {"credentials": {"main": {"file": "/F/twice.yaml"}}},
    "credentials that no header can carry": {"credentials": {"main": {"secret_id": "a", "secret_key": "b\n"}}},
    "upload credentials without an entry": {
        "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main", "upload_credentials": "writer"}]
    },
    "no policy": {"policy": {"file": "/F/none"}},
    "a policy that is no text": {"policy": {"file": "/F/junk"}},
    "a policy that needs an authority": {"policy": {"file": "/F/policy.yaml"}},
    "no certificate": {"policy": {"file": "/F/policy.yaml"}, **tls(certificate="/F/none")},
    "a certificate that is none": {"policy": {"file": "/F/policy.yaml"}, **tls(certificate="/F/junk")},
    "an empty certificate": {"policy": {"file": "/F/policy.yaml"}, **tls(certificate="/F/empty")},
    "the key of another certificate": {"policy": {"file": "/F/policy.yaml"}, **tls(key="/F/other.key")},
    "a certificate for the key": {"policy": {"file": "/F/policy.yaml"}, **tls(key="/F/one.pem")},
    "an authority that is none": {"policy": {"file": "/F/policy.yaml"}, **tls(client_ca="/F/empty")},
    "the certificate of a server as authority": {"policy": {"file": "/F/policy.yaml"}, **tls(client_ca="/F/one.pem")},
    "revocations that are none": {"policy": {"file": "/F/policy.yaml"}, **tls(client_crl="/F/junk")},
    "no keys of an issuer": jwt(jwks_file="/F/none"),
    "keys of an issuer that are none": jwt(jwks_file="/F/jwks"),
    "options of TLS for a Redis without it": redis("redis://127.0.0.1:1?ssl_ca_certs=/F/ca.pem"),
    "no authority of Redis": redis("rediss://127.0.0.1:1?ssl_ca_certs=/F/none"),
    "an authority of Redis that is none": redis("rediss://127.0.0.1:1?ssl_ca_certs=/F/empty"),
    "the key of another certificate for Redis": redis(
        "rediss://127.0.0.1:1?ssl_certfile=/F/one.pem&ssl_keyfile=/F/other.key"
    ),
    "an object URL with another name in braces": {"upstream": {"object_url_base": "https://{hosts}"}},
    "an address of Envoy and the gateway": {"listen": f"{HERE}:50051", "edge": {"listen": "0.0.0.0:50051"}},
    "several mistakes": {"state_dir": "/F/text", "admin_listen": "192.0.2.1:9464"},
}

SOUND: dict[str, dict[str, Any]] = {
    "the smallest": {},
    "TLS and a policy": {"policy": {"file": "/F/policy.yaml"}, **tls()},
    "a Redis that is not there": redis("rediss://127.0.0.1:1?ssl_ca_certs=/F/ca.pem"),
    "workers": {"workers": 2},
}


def written(folder: Path, files: Path, changes: dict[str, Any]) -> Path:
    values: dict[str, Any] = {
        "listen": f"{HERE}:0",
        "admin_listen": f"{HERE}:0",
        "state_dir": str(folder / "state"),
        "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main"}],
        "credentials": {"main": KEYS},
        "upstream": {"endpoint": "http://127.0.0.1:1"},
        "drain": {"delay_seconds": 0, "grace_seconds": 0},
        "logging": {"format": "json"},
    }
    path = folder / "gateway.yaml"
    path.write_text(json.dumps(values | changes).replace("/F", str(files)))
    return path


def check(path: Path, *options: str) -> tuple[int, list[str]]:
    """Exit code and output of `check-config`."""
    done = CliRunner().invoke(app, ["check-config", "--config", str(path), *options])
    return done.exit_code, done.output.splitlines()


async def serve(path: Path) -> tuple[int | None, list[str]]:
    """Exit code and errors of `serve`; None when it serves."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "docpreview_gateway", "serve", "--config", str(path)),
        stderr=asyncio.subprocess.PIPE,
        env={name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")},
    )
    assert process.stderr is not None
    errors = []
    async with asyncio.timeout(60):
        async for line in process.stderr:
            if b'"serving"' in line:
                process.terminate()
                await process.communicate()
                return None, []
            errors.append(line.decode().rstrip())
        return await process.wait(), [line for line in errors if line.startswith("error: ")]


@pytest.mark.parametrize("name", BROKEN)
async def test_check_config_refuses_what_serve_dies_of_in_the_same_words(
    tmp_path: Path, files: Path, name: str
) -> None:
    """The first mistake of `serve` is among those of `check-config`, and each names its setting."""
    path = written(tmp_path, files, BROKEN[name])
    code, said = check(path)
    died, errors = await serve(path)
    assert died in {1, 2}, "serve starts: this is no broken configuration"
    assert errors, "serve dies without a word"
    assert (code, set(errors) <= set(said)) == (2, True), f"{errors} and {said}"
    for line in said:
        assert line.startswith("error: ")
        assert "Error" not in line, "a class of Python"
        assert "[Errno" not in line


@pytest.mark.parametrize("name", SOUND)
async def test_check_config_passes_what_serve_starts_with(tmp_path: Path, files: Path, name: str) -> None:
    """And it changes nothing: the folder of the state is not there after it."""
    path = written(tmp_path, files, SOUND[name])
    assert check(path)[0] == 0
    assert os.listdir(tmp_path) == ["gateway.yaml"]  # noqa: PTH208 - a folder of the test's own
    assert (await serve(path))[0] is None


@pytest.mark.parametrize("setting", ["listen", "admin_listen"])
async def test_a_port_in_use_is_a_warning_because_it_may_be_the_gateway_itself(
    tmp_path: Path, files: Path, taken: int, setting: str
) -> None:
    """The one thing that ends `serve` and not `check-config`, which runs beside gateways; the words are the same."""
    path = written(tmp_path, files, {setting: f"{HERE}:{taken}"})
    code, said = check(path)
    assert code == 0
    (warning,) = [line for line in said if line.startswith("warning: ")]
    died, errors = await serve(path)
    assert (died, errors) == (1, [warning.replace("warning", "error", 1)])
    assert "the port is in use" in warning


async def test_the_ports_of_the_gateway_itself_are_no_warning(tmp_path: Path, files: Path, emulator: Emulator) -> None:
    """`check-config` says what `doctor` says, and not to end the gateway that serves with this configuration."""
    listen = f"{HERE}:{free_port()}"
    async with Gateway(settings(emulator, listen=listen)) as gateway:
        ports = {"listen": listen, "admin_listen": f"{HERE}:{gateway.admin_port}"}
        code, said = await asyncio.to_thread(check, written(tmp_path, files, ports))
    assert (code, [line for line in said if "warning" in line or "end the program" in line]) == (0, [])
    assert [
        f"ok: {name}: {address} is in use by the gateway that answers on admin_listen"
        for name, address in ports.items()
    ] == [line for line in said if "in use" in line]


def test_a_configuration_for_another_machine_is_checked_without_what_this_one_lacks(
    tmp_path: Path, files: Path
) -> None:
    """As where policies are tested before a roll-out; files are read all the same."""
    path = written(tmp_path, files, BROKEN["several mistakes"])
    assert check(path, "--elsewhere")[0] == 0
    path = written(tmp_path, files, BROKEN["several mistakes"] | BROKEN["the key of another certificate"])
    code, said = check(path, "--elsewhere")
    assert (code, len(said), "tls.key" in said[0]) == (2, 1, True)


def run(*words: str, stdin: bytes = b"", stdout: int | None = subprocess.PIPE) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "docpreview_gateway", *words]
    return subprocess.run(command, input=stdin, stdout=stdout, stderr=subprocess.PIPE, check=False, timeout=60)


@pytest.mark.skipif(not Path("/dev/stdin").exists(), reason="the system has no /dev/stdin")
def test_the_configuration_may_come_through_a_pipe(tmp_path: Path, files: Path) -> None:
    """It is read once. Workers would read it again, so it is refused there."""
    text = written(tmp_path, files, {}).read_bytes()
    done = run("check-config", "--config", "/dev/stdin", stdin=text)
    assert (done.returncode, done.stderr) == (0, b"")
    done = run("serve", "--workers", "2", "--config", "/dev/stdin", stdin=text)
    assert done.returncode == 2
    assert done.stderr == b"error: --config /dev/stdin: each worker reads it, and it is no file; write it to one\n"


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="the system has no /dev/full")
@pytest.mark.parametrize("command", [["check-config"], ["doctor", "--json"]])
def test_an_output_that_cannot_be_written_is_one_line_and_no_success(
    tmp_path: Path, files: Path, command: list[str]
) -> None:
    """As on a full disk: no traceback."""
    path = written(tmp_path, files, {})
    with Path("/dev/full").open("wb") as full:
        done = run(*command, "--config", str(path), stdout=full.fileno())
    assert (done.returncode, done.stderr) == (1, b"error: stdout: No space left on device\n")


def test_check_config_may_run_beside_a_gateway_that_has_made_its_state(tmp_path: Path, files: Path) -> None:
    """Files of the state are read, and left as they are."""
    path = written(tmp_path, files, {})
    asyncio.run(serve(path))
    before = {entry.name: entry.stat().st_mtime_ns for entry in (tmp_path / "state").iterdir()}
    assert before
    assert check(path)[0] == 0
    assert {entry.name: entry.stat().st_mtime_ns for entry in (tmp_path / "state").iterdir()} == before


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("listen: a\nlisten: b\n", "line 2, column 1: duplicate key listen"),
        ("limits:\n  max_calls: 1\n  max_calls: 2\n", "line 3, column 3: duplicate key max_calls"),
    ],
)
def test_a_key_that_stands_twice_is_a_mistake_with_its_line(tmp_path: Path, text: str, line: str) -> None:
    """YAML itself would take the last of them."""
    path = tmp_path / "gateway.yaml"
    path.write_text(text)
    assert check(path) == (2, [f"error: {path}: {line}"])
