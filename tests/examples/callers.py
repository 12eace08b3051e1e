"""The two callers of examples/production, with what its folder `callers` has for them."""

from __future__ import annotations

import threading
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509 import load_pem_x509_certificate

from docpreview_client import BlockingClient, Tls
from tests.examples.production import BUCKET, PATIENCE, PORTS

if TYPE_CHECKING:
    from pathlib import Path
    from types import TracebackType

TARGET = f"ipv4:127.0.0.1:{PORTS['50051']},127.0.0.1:{PORTS['50052']}"
SERVER_NAME = "docpreview.example.com"
PLACES = {"web": ("in/", "out/"), "archive": ("archive/", "previews/archive/")}
"""Where the callers of the policy may put documents and pages."""

CALLS_OF_A_CLIENT = 10


def certified(folder: Path, name: str) -> Tls:
    """The TLS of a caller. Certificate and key are of one pair: they may be replaced, one after the other, just now."""
    while True:
        authorities, chain, key = (
            (folder / file).read_bytes() for file in ("servers-ca.crt", f"{name}.crt", f"{name}.key")
        )
        public = load_pem_x509_certificate(chain).public_key()
        if public == load_pem_private_key(key, None).public_key():
            return Tls(root_certificates=authorities, certificate_chain=chain, private_key=key, server_name=SERVER_NAME)


def client(folder: Path, name: str, *, tls: Tls | None = None, token: str = "") -> BlockingClient:
    """A client of a caller: `web` shows the token of its file, unless another one is given."""
    given = token or ((folder / "web.token").read_text().strip() if name == "web" else "")
    return BlockingClient(TARGET, tls=tls or certified(folder, name), token=given or None)


@dataclass
class Calls:
    """Reads and creates of both callers that go on in threads: `with Calls(folder) as calls`.

    Every ten calls a caller makes a new client, with what its files are then.
    """

    folder: Path
    document: bytes
    failures: list[str] = field(default_factory=list)
    done: dict[str, int] = field(default_factory=lambda: dict.fromkeys(PLACES, 0))

    def __post_init__(self) -> None:
        self._end = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(name,)) for name in PLACES]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        self.go_on()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end.set()
        for thread in self._threads:
            thread.join()

    def go_on(self) -> None:
        """Return when each caller has made calls with a client that was made after now. AssertionError: one failed."""
        wanted = {name: done + 2 * CALLS_OF_A_CLIENT for name, done in self.done.items()}
        deadline = time.monotonic() + PATIENCE
        while any(self.done[name] < count for name, count in wanted.items()):
            assert not self.failures, self.failures
            assert time.monotonic() < deadline, self.done
            time.sleep(0.02)
        assert not self.failures, self.failures

    def _run(self, name: str) -> None:
        try:
            self._call(name)
        except Exception as error:  # noqa: BLE001 - whatever fails is a failure
            self.failures.append(f"{name}: {error!r}")

    def _call(self, name: str) -> None:
        source, output = PLACES[name]
        key = f"{source}{uuid.uuid4()}.pdf"
        with client(self.folder, name) as caller:
            caller.upload(self.document, BUCKET, object=key)
        while not self._end.is_set():
            with client(self.folder, name) as caller:
                job = caller.create(BUCKET, key, output_object=f"{output}{uuid.uuid4()}/${{Number}}.jpg")
                for _ in range(CALLS_OF_A_CLIENT):
                    caller.get(BUCKET, job.job_id, no_cache=True)
                    self.done[name] += 1
                    self._end.wait(0.05)
