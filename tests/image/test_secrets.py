"""A build behind a proxy that inspects TLS, or with an index of its own: its authority and pip.conf are secrets."""

from __future__ import annotations

import base64
import ssl
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest
import trustme

from tests.image.containers import BASE, tools
from tests.packaging.project import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

LOGIN = "builder:a-password"


class Index(ThreadingHTTPServer):
    """A package index on loopback that has nothing; it keeps path and `Authorization` of what reaches it."""

    def __init__(self, authority: trustme.CA) -> None:
        super().__init__(("127.0.0.1", 0), _Nothing)
        self.seen: list[tuple[str, str | None]] = []
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        authority.issue_cert("127.0.0.1").configure_cert(context)
        self.refused: list[BaseException | None] = []
        self.socket = context.wrap_socket(self.socket, server_side=True, do_handshake_on_connect=False)

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002 - of its base class
        """Keep what a client thinks of the certificate."""
        self.refused.append(sys.exception())


class _Nothing(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        assert isinstance(self.server, Index)
        self.server.seen.append((self.path, self.headers["Authorization"]))
        self.send_error(404)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the name of its base class
        """Nothing."""


@contextmanager
def index(authority: trustme.CA) -> Iterator[Index]:
    with Index(authority) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def build(*secrets: str) -> str:
    """What a build says that finds no packages."""
    options = ("--format", "docker", "--layers=false", "--pull=never", "--network", "host", "--target", "wheels")
    words = ["buildah", "build", *options, "--build-arg", f"BASE_IMAGE={BASE}", *secrets, "."]
    done = subprocess.run(words, check=False, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode != 0
    return done.stdout + done.stderr


def test_pip_asks_the_index_of_the_pip_conf_and_trusts_the_authority_of_the_build(tmp_path: Path) -> None:
    """Without the authority no request arrives. The login of the index is in no output."""
    tools()
    authority = trustme.CA()
    ca, conf = tmp_path / "ca.pem", tmp_path / "pip.conf"
    authority.cert_pem.write_to_path(ca)
    with index(authority) as server:
        conf.write_text(f"[global]\nindex-url = https://{LOGIN}@127.0.0.1:{server.server_port}/simple\nretries = 0\n")
        said = build("--secret", f"id=pip,src={conf}")
        assert server.seen == []
        assert "unknown ca" in str(server.refused[0])
        said += build("--secret", f"id=pip,src={conf}", "--secret", f"id=ca,src={ca}")
        (path, login), *_ = server.seen
    assert path.startswith("/simple/")
    assert login == f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
    assert LOGIN.partition(":")[2] not in said
