"""What keeps a gateway from starting on this machine, beside its files: found without a start and without a change.

`serve` and `check-config` both ask this, so they say the same. What Redis and the cloud answer is for `doctor`.
"""

from __future__ import annotations

import os
import ssl
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from docpreview_gateway.creates.imported import OldStoreError
from docpreview_gateway.creates.old_sqlite import LEDGER, PAGES, OldFiles
from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.storage import redis_urls
from docpreview_gateway.storage.key_file import OWN_NAME, KeyFileError, read_secrets
from docpreview_gateway.storage.sqlite_file import check_usable, is_full
from docpreview_gateway.wiring.listening import AddressProblem, address_problem
from docpreview_gateway.wiring.reserved_port import CAN_SHARE, NO_SHARING
from docpreview_gateway.wiring.state_files import BROKEN_STORE, STORE_FILE, journal_file

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.settings.sections import TracingSettings

BLOCK = 4096
"""Bytes that are written to find out whether the disk is full."""


def machine_problems(settings: Settings) -> Iterator[str]:
    """A line for each problem, with its setting. Ports are left to `port_problems`."""
    yield from state_problems(settings)
    yield from redis_file_problems(settings)
    if problem := tracing_problem(settings.tracing):
        yield problem
    if settings.workers > 1 and not CAN_SHARE:
        yield NO_SHARING


def port_problems(settings: Settings) -> list[AddressProblem]:
    """The problems of the gateway's own addresses."""
    return [
        found for name, address in settings.addresses.items() if (found := address_problem(name, address)) is not None
    ]


def tracing_problem(settings: TracingSettings) -> str:
    """Why there can be no traces as these settings want them; empty: there can. Nothing of them is loaded here."""
    if settings.endpoint is None:
        return ""
    try:
        is_there = find_spec("opentelemetry.exporter.otlp.proto.http") is not None
    except ModuleNotFoundError:
        is_there = False
    return "" if is_there else 'tracing.endpoint: needs OpenTelemetry: pip install "docpreview-gateway[otel]"'


def state_problems(settings: Settings) -> Iterator[str]:
    """Problems of `state_dir`, and of the files that a gateway has left in it."""
    folder = settings.state_dir
    if problem := folder_problem(folder, may_be_full=True):
        yield f"state_dir: {folder}: {problem}"
        return
    own = folder / OWN_NAME
    if settings.ledger.key_file is None and own.exists():
        try:
            read_secrets(own)
        except KeyFileError as error:
            yield f"state_dir: {error}"
    is_shared = settings.shared_state.url is not None or settings.shared_state.ledger_url is not None
    stores = [] if is_shared else [folder / STORE_FILE]
    journals = [folder / journal_file("")] if settings.workers == 1 else sorted(folder.glob(journal_file("*")))
    for path in filter(os.path.lexists, [*stores, *journals]):
        try:
            check_usable(path, StoreError)
        except StoreError as error:
            yield f"state_dir: {error}; {BROKEN_STORE}"
    try:
        OldFiles(folder, [PAGES] if is_shared else [LEDGER, PAGES]).read()
    except OldStoreError as error:
        yield f"creates of an earlier version: {error}"


def folder_problem(folder: Path, *, may_be_full: bool) -> str:
    """Why a folder cannot be written, or made if it is missing; empty: it can.

    A gateway starts on a full disk all the same, and does what needs no records.
    """
    remedy = "name a folder that the gateway's user may write, or that can be made"
    try:
        folder.stat()
    except (FileNotFoundError, NotADirectoryError):
        pass
    except OSError as error:
        return f"cannot be used: {error.strerror}; {remedy}"
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not there.exists():
        return f"{'it' if there == folder else there} is a link to what is not there; {remedy}"
    if not there.is_dir():
        return f"{'it' if there == folder else there} is no folder; {remedy}"
    try:
        with tempfile.TemporaryFile(dir=there, buffering=0) as file:
            file.write(bytes(BLOCK))
    except OSError as error:
        if is_full(error):
            return "" if may_be_full else f"is full: {error.strerror}; free some space on its disk"
        what = "cannot be written" if there == folder else "cannot be made"
        return f"{what}: {error.strerror}; {remedy}"
    return ""


def redis_file_problems(settings: Settings) -> Iterator[str]:
    """Problems of the TLS files that the addresses of Redis name."""
    state = settings.shared_state
    for name, url in (("url", state.url), ("ledger_url", state.ledger_url)):
        if url is not None:
            for problem in _tls_problems(redis_urls.options(url.get_secret_value())):
                yield f"shared_state.{name}: {problem}"


def _tls_problems(options: Mapping[str, str]) -> Iterator[str]:
    files = {name: Path(options[name]) for name in redis_urls.TLS_FILES if options.get(name)}
    for name, path in files.items():
        try:
            path.read_bytes()
        except OSError as error:
            yield f"{name}: {path}: {error.strerror}"
            return
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    authorities, certificate, key = (files.get(name) for name in redis_urls.TLS_FILES)
    if authorities is not None:
        try:
            context.load_verify_locations(authorities)
        except ssl.SSLError:
            yield f"ssl_ca_certs: {authorities}: has no certificates in PEM"
    if certificate is not None:
        try:
            context.load_cert_chain(certificate, key, password="")
        except ssl.SSLError:
            yield f"ssl_certfile: {certificate}: is no PEM certificate of the key in {key or 'the same file'}"
