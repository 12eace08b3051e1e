"""TLS and HTTP CONNECT: clients that insist on https and on the cloud's host names."""

import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509
from qcloud_cos import CosConfig, CosS3Client

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.errors import StorageError
from docpreview_emulator.threaded import running
from tests.documents.blocks import run_by
from tests.unit.emulator.cloud_client import BUCKET, CI_HOST, COS_HOST, REGION, SECRET_ID, SECRET_KEY, Signer
from tests.unit.emulator.pdf_files import pdf

HERE = "tests/unit/emulator/test_tls.py"
TLS = Settings(submit_delay=0.0, tls=True)


@pytest.fixture
def emulator(tmp_path: Path) -> Iterator[Emulator]:
    with running(Emulator(tmp_path / "data", settings=TLS)) as emulator:
        yield emulator


def trusting(emulator: Emulator) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=emulator.ca_file)


def get(client: httpx.Client, url: str) -> httpx.Response:
    """A signed read of the queues at any address of the CI host."""
    signed = Signer().sign("GET", "/docqueue", {}, {"host": CI_HOST})
    authorization = "&".join(f"{name}={value}" for name, value in signed.items())
    return client.get(f"{url}/docqueue", headers={"Host": CI_HOST, "Authorization": authorization})


def sent(emulator: Emulator, data: bytes) -> bytes:
    """What a bare socket gets for these bytes, until the emulator closes."""
    with socket.create_connection(("127.0.0.1", emulator.port), timeout=10) as connection:
        connection.sendall(data)
        return b"".join(iter(lambda: connection.recv(4096), b""))


def hello(emulator: Emulator, name: str | None, context: ssl.SSLContext | None = None) -> dict[str, Any]:
    """The certificate that a client gets when it asks for a name."""
    with (
        socket.create_connection(("127.0.0.1", emulator.port), timeout=10) as connection,
        (context or trusting(emulator)).wrap_socket(connection, server_hostname=name) as secure,
    ):
        return dict(secure.getpeercert() or {})


def test_one_port_speaks_plain_http_and_tls(emulator: Emulator) -> None:
    with httpx.Client(verify=trusting(emulator), trust_env=False) as client:
        for scheme in ("http", "https"):
            reply = client.get(f"{scheme}://127.0.0.1:{emulator.port}/_emulator/health")
            assert reply.json()["status"] == "ok"


def test_each_name_of_the_cloud_has_a_certificate_and_other_names_have_none(emulator: Emulator) -> None:
    """The name is that of the client's hello; the suffix after the region is open, as for the `Host` header."""
    for name in (CI_HOST, COS_HOST, f"other-1250000000.cos.{REGION}.tencentcos.cn", f"cos.{REGION}.example.org"):
        assert hello(emulator, name)["subjectAltName"] == (("DNS", name),)
    assert hello(emulator, "localhost")["subjectAltName"][0] == ("DNS", "localhost")
    with pytest.raises(ssl.SSLCertVerificationError, match=r"not valid for 'example.org'"):
        hello(emulator, "example.org")


def test_a_client_that_does_not_know_the_authority_refuses_the_certificate(emulator: Emulator) -> None:
    with pytest.raises(ssl.SSLCertVerificationError):
        hello(emulator, CI_HOST, ssl.create_default_context())


def test_certificates_pass_the_strict_checks_of_rfc_5280(emulator: Emulator) -> None:
    context = trusting(emulator)
    context.verify_flags |= ssl.VERIFY_X509_STRICT
    assert hello(emulator, COS_HOST, context)


def test_the_authority_is_kept_and_its_key_is_for_the_owner_only(tmp_path: Path) -> None:
    with running(Emulator(tmp_path / "data", settings=TLS)) as emulator:
        first, file = emulator.ca_file.read_bytes(), emulator.ca_file
        assert (file.parent.stat().st_mode & 0o777, (file.parent / "ca.key").stat().st_mode & 0o777) == (0o700, 0o600)
    with running(Emulator(tmp_path / "data", settings=TLS)) as emulator:
        assert emulator.ca_file.read_bytes() == first
        assert [path.name for path in sorted(file.parent.iterdir())] == ["ca.crt", "ca.key"]


def test_two_emulators_have_two_authorities_of_two_names(tmp_path: Path) -> None:
    names = set()
    for number in range(2):
        with running(Emulator(tmp_path / str(number), settings=TLS)) as emulator:
            names.add(x509.load_pem_x509_certificate(emulator.ca_file.read_bytes()).subject.rfc4514_string())
    assert len(names) == 2


@pytest.mark.parametrize("file", ["ca.key", "ca.crt"])
def test_a_damaged_authority_is_told_at_start_with_what_to_do(tmp_path: Path, file: str) -> None:
    with running(Emulator(tmp_path, settings=TLS)):
        pass
    (tmp_path / "tls" / file).write_bytes(b"torn")
    with (
        pytest.raises(StorageError, match=r"no usable authority .*: remove it, and a new authority is made"),
        running(Emulator(tmp_path, settings=TLS)),
    ):
        pass


def test_a_tunnel_leads_to_the_emulator_with_tls_and_without(emulator: Emulator) -> None:
    """What `HTTPS_PROXY` makes of a client, and a proxy that tunnels plain HTTP too."""
    with httpx.Client(verify=trusting(emulator), proxy=emulator.url, trust_env=False) as client:
        assert "QueueList" in get(client, f"https://{CI_HOST}").text
    plain = (
        f"CONNECT {CI_HOST}:80 HTTP/1.1\r\nHost: {CI_HOST}:80\r\n\r\nGET /docqueue HTTP/1.0\r\nHost: {CI_HOST}\r\n\r\n"
    )
    reply = sent(emulator, plain.encode())
    assert reply.startswith(b"HTTP/1.1 200 Connection established\r\n\r\nHTTP/1.0 403 ")
    assert b"MissingAuthorization" in reply
    assert [record.host for record in emulator.requests] == [CI_HOST, CI_HOST]


def test_a_request_in_proxy_form_reaches_the_cloud(emulator: Emulator) -> None:
    with httpx.Client(proxy=emulator.url, trust_env=False) as client:
        assert "QueueList" in get(client, f"http://{CI_HOST}").text


@pytest.mark.parametrize("target", ["example.org:443", "127.0.0.1:22", "localhost:443", "[::1]:443", "cos:443"])
def test_a_tunnel_to_another_host_is_refused_and_nothing_is_dialled(emulator: Emulator, target: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        target = target.replace(":22", f":{other.getsockname()[1]}")
        head, _, body = sent(emulator, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()).partition(
            b"\r\n\r\n"
        )
        assert head.startswith(b"HTTP/1.1 403 Not a host of the cloud\r\n")
        assert body.decode() == (
            f"{target} is not a host of the cloud, and the emulator connects to nothing else. "
            "Name other hosts in NO_PROXY.\n"
        )
        other.settimeout(0)
        with pytest.raises(BlockingIOError):
            other.accept()


def test_a_request_in_proxy_form_for_another_host_is_refused(emulator: Emulator) -> None:
    with httpx.Client(proxy=emulator.url, trust_env=False) as client:
        for url in ("http://example.org/", f"{emulator.url}/_emulator/requests", f"{emulator.url}/"):
            reply = client.get(url)
            assert (reply.status_code, "is a proxy to nothing else" in reply.text) == (403, True)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", CI_HOST])
def test_control_routes_are_not_reachable_through_a_tunnel(emulator: Emulator, host: str) -> None:
    with httpx.Client(verify=trusting(emulator), proxy=emulator.url, trust_env=False) as client:
        reply = client.get(f"https://{CI_HOST}/_emulator/requests", headers={"Host": host})
        assert reply.status_code == 403


def test_a_head_of_connect_that_is_no_http_or_has_no_end_is_refused(emulator: Emulator) -> None:
    assert sent(emulator, b"COPY / HTTP/1.1\r\n\r\n").startswith(b"HTTP/1.1 400 Bad Request")
    assert sent(emulator, b"CONNECT " + b"a" * (16 * 1024 - 8)) == b""


def test_a_tunnel_that_is_asked_for_by_tls_is_refused_with_what_to_do(emulator: Emulator) -> None:
    """As by a client whose proxy is named with https://."""
    with (
        socket.create_connection(("127.0.0.1", emulator.port), timeout=10) as connection,
        trusting(emulator).wrap_socket(connection, server_hostname="localhost") as secure,
    ):
        secure.sendall(f"CONNECT {CI_HOST}:443 HTTP/1.1\r\nHost: {CI_HOST}:443\r\n\r\n".encode())
        reply = b"".join(iter(lambda: secure.recv(4096), b""))
    assert reply.startswith(b"HTTP/1.1 501 ")
    assert b"name the proxy as http://" in reply


def test_without_tls_a_tunnel_is_refused_with_the_option_that_it_needs(tmp_path: Path) -> None:
    with running(Emulator(tmp_path)) as emulator:
        target = f"{CI_HOST}:443"
        reply = sent(emulator, f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        assert reply.startswith(b"HTTP/1.1 501 Start the emulator with --tls\r\n")


def test_a_client_that_comes_and_says_nothing_holds_up_nobody_and_not_the_end(tmp_path: Path) -> None:
    with running(Emulator(tmp_path, settings=TLS)) as emulator:
        silent = socket.create_connection(("127.0.0.1", emulator.port), timeout=10)
        with httpx.Client(trust_env=False) as client:
            assert client.get(f"{emulator.url}/_emulator/health").is_success
    with silent:
        assert silent.recv(1) == b""


def test_the_vendors_sdk_works_over_https_through_the_proxy(emulator: Emulator) -> None:
    """With `Scheme="https"`, as it is by default; the host names, the TLS and the signatures are those of the cloud."""
    keys = {"SecretId": SECRET_ID, "SecretKey": SECRET_KEY}
    proxies = {"https": emulator.url}
    sdk = CosS3Client(CosConfig(Region=REGION, Proxies=proxies, VerifySSL=str(emulator.ca_file), **keys), retry=0)
    assert sdk.put_object(Bucket=BUCKET, Key="a.pdf", Body=pdf(2))["ETag"]
    output = {"OutputBucket": BUCKET, "OutputRegion": REGION, "OutputObject": "out/${Number}"}
    job = sdk.ci_create_doc_job(Bucket=BUCKET, InputObject="a.pdf", **output)["JobsDetail"]
    assert sdk.ci_get_doc_job(Bucket=BUCKET, JobID=job["JobId"])["JobsDetail"][0]["JobId"] == job["JobId"]
    assert emulator.accepted_jobs == 1


UNCHANGED = f"""
from qcloud_cos import CosConfig, CosS3Client
sdk = CosS3Client(CosConfig(Region="{REGION}", SecretId="{SECRET_ID}", SecretKey="{SECRET_KEY}"), retry=0)
sdk.put_object(Bucket="{BUCKET}", Key="a.txt", Body=b"twelve bytes")
print(sdk.head_object(Bucket="{BUCKET}", Key="a.txt")["Content-Length"])
"""


def test_the_command_writes_the_authority_and_environment_variables_are_enough_for_the_sdk(tmp_path: Path) -> None:
    """A program that knows nothing of the emulator, with the two lines of the README around it."""
    (block,) = run_by(f"{HERE}::test_the_command_writes_the_authority_and_environment_variables_are_enough_for_the_sdk")
    serve, program = block.text.replace("$ docpreview-emulator", "").replace("$ ", "").splitlines()
    (tmp_path / "program.py").write_text(UNCHANGED)
    command = [sys.executable, "-m", "docpreview_emulator", *serve.split(), "--port", "0"]
    with subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = process.stdout.readline().split()[-1]
            assert process.stdout.readline().endswith("for clients that trust the authority in ca.pem\n")
            line = program.replace("http://127.0.0.1:8089", url).replace("python", sys.executable)
            done = subprocess.run(line, shell=True, cwd=tmp_path, capture_output=True, text=True, check=True)  # noqa: S602 - a line of the README
            assert done.stdout == "12\n"
            assert stat.S_IMODE((tmp_path / "ca.pem").stat().st_mode) == 0o644
        finally:
            process.terminate()


def test_ca_out_without_tls_is_refused(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "docpreview_emulator", "serve", "--ca-out", str(tmp_path / "ca.pem")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "--ca-out needs --tls" in done.stderr
