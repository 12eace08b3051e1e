"""An emulator, and the runs of the drivers against it."""

from __future__ import annotations

import io
import json
import ssl
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any
from urllib.error import HTTPError
from urllib.request import HTTPSHandler, ProxyHandler, Request, build_opener

import pypdfium2 as pdfium

from docpreview_emulator import Credential, Emulator
from docpreview_emulator.model import DEFAULT_CREDENTIAL
from docpreview_emulator.settings import Settings
from docpreview_emulator.threaded import running
from tests.vendor.operations import KEYS, NOTIFY, OPERATIONS
from tests.vendor.sdks import NotBuiltError, Sdk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

REGION, MISSING_JOB = "ap-chongqing", f"d{'0' * 32}"
TEMPORARY = Credential("temporary-secret-id", "TEMPORARYsecretKEY", "TOKEN+/=abc")
SCHEMES = ("http", "https")


@dataclass(frozen=True)
class Run:
    """What one driver printed, and the emulator that it spoke to."""

    world: World
    settings: dict[str, Any]
    results: dict[str, Any]
    differs: dict[str, tuple[object, str]]
    ended: str

    @property
    def bucket(self) -> str:
        return str(self.settings["bucket"])

    @property
    def document(self) -> bytes:
        return self.world.document.read_bytes()

    @property
    def large(self) -> bytes:
        return self.world.large.read_bytes()

    def stored(self, key: str) -> bytes:
        return self.world.emulator.get_object(self.bucket, REGION, key)

    def fetch(self, method: str, address: str, body: bytes | None = None) -> bytes:
        """What a program without any SDK gets at the address."""
        assert address.startswith(f"{self.settings['scheme']}://{self.bucket}.cos.{REGION}.myqcloud.com/"), address
        proxy = ProxyHandler(dict.fromkeys(("http", "https"), self.world.emulator.url))
        opener = build_opener(proxy, HTTPSHandler(context=self.world.tls))
        request = Request(address, body, {"Content-Type": "text/plain"} if body else {}, method=method)  # noqa: S310
        try:
            with opener.open(request, timeout=20) as answer:
                content: bytes = answer.read()
        except HTTPError as error:
            raise AssertionError(f"{method} {address}: {error.code} {error.read()!r}") from error
        return content

    def check(self, operation: str) -> None:
        """Raises: AssertionError: the operation did not give what it has to."""
        assert operation in self.results, f"the driver ended before {operation!r}: {self.ended}"
        if operation in self.differs:
            assert self.results[operation] == self.differs[operation][0]
        else:
            OPERATIONS[operation](self, self.results[operation])


@dataclass(frozen=True)
class World:
    """A running emulator, and the files that drivers upload."""

    emulator: Emulator
    document: Path
    large: Path
    ca: Path

    @property
    def tls(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=self.ca)

    def run(self, sdk: Sdk, scheme: str) -> Run:
        """Runs the driver of the SDK, with a bucket of its own."""
        settings = {
            "scheme": scheme,
            "proxy": self.emulator.url,
            "ca": str(self.ca),
            "region": REGION,
            "bucket": f"vendor-{sdk.language}-{scheme}-1250000000",
            "missingBucket": "never-made-1250000000",
            "missingJob": MISSING_JOB,
            "keys": KEYS,
            "notify": NOTIFY,
            "later": "2099-01-01T00:00:00+0800",
            "secretId": DEFAULT_CREDENTIAL.secret_id,
            "secretKey": DEFAULT_CREDENTIAL.secret_key,
            "temporaryId": TEMPORARY.secret_id,
            "temporaryKey": TEMPORARY.secret_key,
            "token": TEMPORARY.token,
            "document": str(self.document),
            "large": str(self.large),
        }
        file = self.document.with_name(f"{sdk.language}-{scheme}.json")
        file.write_text(json.dumps(settings))
        command = [word.replace("{ca}", str(self.ca)) for word in (*sdk.driver, str(file))]
        trust = {name: value.replace("{ca}", str(self.ca)) for name, value in sdk.trust.items()}
        done = sdk.run(*command, environment=trust)
        results = [json.loads(line) for line in done.stdout.splitlines()]
        values = {each["operation"]: each["error"] if "error" in each else each["value"] for each in results}
        return Run(self, settings, values, sdk.differs, f"status {done.returncode}\n{done.stderr[-4000:]}")


class Runs:
    """The runs of all drivers against one emulator, each made once, when it is asked for."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._runs: dict[tuple[str, str], Run] = {}
        self._built: dict[str, NotBuiltError | None] = {}

    def get(self, sdk: Sdk, scheme: str) -> Run:
        """Raises: NotBuiltError: the driver could not be built."""
        if sdk.name not in self._built:
            try:
                sdk.build()
                self._built[sdk.name] = None
            except NotBuiltError as error:
                self._built[sdk.name] = error
        if failed := self._built[sdk.name]:
            raise failed
        if (sdk.name, scheme) not in self._runs:
            self._runs[sdk.name, scheme] = self._world.run(sdk, scheme)
        return self._runs[sdk.name, scheme]


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """An emulator without any bucket; its files are in the folder."""
    document, large = folder / "report.pdf", folder / "large.bin"
    document.write_bytes(_pdf(2))
    large.write_bytes(bytes(range(256)) * 10_000)
    keys, settings = [DEFAULT_CREDENTIAL, TEMPORARY], Settings(tls=True, strict=True)
    emulator = Emulator(folder / "cloud", credentials=keys, settings=settings)
    with running(emulator):
        yield World(emulator, document, large, emulator.ca_file)


def _pdf(pages: int) -> bytes:
    document, file = pdfium.PdfDocument.new(), io.BytesIO()
    for _ in range(pages):
        document.new_page(200, 100)
    document.save(file)
    document.close()
    return file.getvalue()
