"""Checks of this machine: the files that the settings name, the state directory, certificates and ports."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cryptography import x509

from docpreview_gateway.doctor.check_commands import file_problems
from docpreview_gateway.doctor.diagnosis import Finding, of_expiry
from docpreview_gateway.doctor.port_checks import ports
from docpreview_gateway.storage import redis_urls
from docpreview_gateway.storage.key_file import OWN_NAME
from docpreview_gateway.wiring.preflight import machine_problems

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docpreview_gateway.doctor.diagnosis import Check
    from docpreview_gateway.settings.loading import Settings

_OTHERS = stat.S_IWGRP | stat.S_IWOTH


def local_findings(settings: Settings, now: float) -> list[Finding]:
    """Findings on this machine. Nothing is changed."""
    files = [_of_problem("files", problem) for problem in file_problems(settings)]
    return [
        *(files or [Finding("files", "configuration", "all files that it names can be used")]),
        *(
            _of_problem("state", problem)
            for problem in machine_problems(settings)
            if not _is_folders(problem, settings)
        ),
        *_modes(settings),
        *_certificates(settings, now),
        *_ports(settings),
    ]


def _is_folders(problem: str, settings: Settings) -> bool:
    """Whether a problem is that of the folder itself, which the checks of the store name."""
    return problem.startswith(f"state_dir: {settings.state_dir}: ")


def _of_problem(check: Check, problem: str) -> Finding:
    """A line of `check-config`: what stands before its first colon is the setting."""
    setting, _, what = problem.partition(": ")
    return Finding(check, setting, what, f"correct {setting} or what it names: the gateway does not start with it")


def _modes(settings: Settings) -> Iterator[Finding]:
    """Who else may write the state, or read files with secrets."""
    folder = settings.state_dir
    if folder.is_dir():
        yield _folder_mode(folder)
    yield from secret_mode("state", "the secret for creates", settings.ledger.key_file or folder / OWN_NAME)
    if settings.tls.key is not None:
        yield from secret_mode("files", "the key of the gateway's certificate", settings.tls.key)
    for name, credentials in settings.credentials.items():
        if credentials.file is not None:
            yield from secret_mode("files", f"the keys of credentials.{name}", credentials.file)
    for path in _redis_keys(settings):
        yield from secret_mode("files", "the key of the certificate for Redis", path)


def _folder_mode(folder: Path) -> Finding:
    found = folder.stat()
    mode = stat.S_IMODE(found.st_mode)
    what = f"has the mode {mode:04o}"
    if not mode & _OTHERS:
        return Finding("state", str(folder), what)
    # With the sticky bit they may replace nothing, but be first to make the secret.
    do = "put records and a secret of theirs there" if mode & stat.S_ISVTX else "replace the records and the secret"
    # A volume of Kubernetes has such a mode, and belongs to root: its container has no other users.
    is_ours = found.st_uid == os.geteuid()
    others = "name a folder of this user with the mode 700 (state_dir), unless the machine has no other users"
    todo = f"chmod 700 {folder}" if is_ours else others
    return Finding("state", str(folder), f"{what}: other users may {do}", todo, is_warning=not is_ours)


def _redis_keys(settings: Settings) -> set[Path]:
    """Files with keys of client certificates; without one of its own a key is in the file of the certificate."""
    urls = filter(None, (settings.shared_state.url, settings.shared_state.ledger_url))
    options = [redis_urls.options(url.get_secret_value()) for url in urls]
    return {Path(path) for each in options if (path := each.get("ssl_keyfile") or each.get("ssl_certfile"))}


def secret_mode(check: Check, name: str, path: Path) -> Iterator[Finding]:
    """A finding if other users of the machine may read a file with a secret."""
    if not path.is_file():
        return
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & (_OTHERS | stat.S_IROTH):
        what = f"has the mode {mode:04o}: other users of this machine may read {name}"
        # In a container, where files of Secrets have this mode, there are no others.
        yield Finding(check, str(path), what, f"chmod 600 {path}", is_warning=not mode & _OTHERS)


def _certificates(settings: Settings, now: float) -> Iterator[Finding]:
    """How long the gateway's own certificate, and each authority of client certificates, is valid."""
    tls = settings.tls
    for name, path in (("tls.certificate", tls.certificate), ("tls.client_ca", tls.client_ca)):
        for found in _read(path):
            subject = f"{name} ({found.subject.rfc4514_string() or 'without a subject'})"
            begin = found.not_valid_before_utc.timestamp()
            if begin > now:
                what = f"the certificate is valid only from {found.not_valid_before_utc:%Y-%m-%d %H:%M} UTC on"
                yield Finding("certificate", subject, what, "wait, correct this machine's clock, or use another one")
            else:
                yield of_expiry("certificate", subject, found.not_valid_after_utc.timestamp(), now)


def _read(path: Path | None) -> list[x509.Certificate]:
    """The certificates of a file; none when it cannot be used, which is a finding of its own."""
    try:
        return [] if path is None else x509.load_pem_x509_certificates(path.read_bytes())
    except (OSError, ValueError):
        return []


def _ports(settings: Settings) -> Iterator[Finding]:
    """Whether the gateway can listen; a port that it has itself is as it should be."""
    for port in ports(settings):
        if port.problem:
            yield _of_problem("ports", port.problem.replace(f"{port.setting} ", f"{port.setting}: ", 1))
        else:
            yield Finding("ports", port.setting, port.result)
