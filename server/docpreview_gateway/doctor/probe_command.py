"""`docpreview-gateway doctor --probe`: what it costs, the question, the run, and the file with what it has found."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any, NamedTuple

import typer

from docpreview_gateway.wiring.command_line import USAGE, fail

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from docpreview_gateway.doctor.diagnosis import Finding
    from docpreview_gateway.model.buckets import Bucket
    from docpreview_gateway.settings.loading import Settings

FAILED = 1
FORMAT = 1
"""Version of the report's form."""

_NEEDED = frozenset({"files", "dns", "proxy", "tls", "clock", "signature", "binding"})
"""Checks without whose success there is nothing to probe. A paused queue is a thing to learn about."""


_PAUSED = (
    "No queue of this bucket is active: the job will be refused, or wait, and is billed when the queue goes on. The "
    "probe records which."
)


class Choice(NamedTuple):
    """What the command's options say."""

    bucket: str | None
    document: str
    report: Path
    yes: bool


def run(settings: Settings, findings: Sequence[Finding], choice: Choice) -> None:
    """Make the job, once that is agreed to, and write the report. Ends the command when it cannot, or is not to."""
    import asyncio  # noqa: PLC0415 - as for `load`

    bucket = _bucket(settings, choice.bucket)
    if wrong := sorted({each.check for each in findings if not each.ok and each.check in _NEEDED}):
        fail([f"--probe: correct the problems above first ({', '.join(wrong)}); no job was made"], FAILED)
    try:
        # Before the job: what could not be written would have been billed for nothing.
        choice.report.open("a").close()
    except OSError as error:
        fail([f"--report {choice.report}: {error.strerror}; no job was made"], USAGE)
    typer.echo(_cost(bucket, choice), err=True)
    if any(each.check == "queue" and each.subject == bucket.name and not each.ok for each in findings):
        typer.echo(_PAUSED, err=True)
    _ask(choice)
    facts, failed = asyncio.run(_probe(settings, bucket, choice.document))
    choice.report.write_text(_report(settings, bucket, facts))
    typer.echo(f"{choice.report}: written. Read it, and attach it to an issue of the project if you like.", err=True)
    if failed:
        words = (f"{name}: {facts[name]['failed']}" for name in failed)
        fail([f"--probe: {each}" for each in words], FAILED)


def _bucket(settings: Settings, name: str | None) -> Bucket:
    buckets = {found.name: found.bucket() for found in settings.buckets}
    if name is None:
        return next(iter(buckets.values()))
    if name not in buckets:
        fail([f"--bucket {name}: the configuration names {', '.join(buckets)}"], USAGE)
    return buckets[name]


def _cost(bucket: Bucket, choice: Choice) -> str:
    document = f"reads {choice.document}" if choice.document else "puts a PDF of one page below docpreview-probe/"
    return (
        f"The probe {document} in {bucket.name}, and makes one job of its first page. The cloud bills one page of "
        "document preview at its price, a few dozen requests, and the transfer of some kilobytes. The page, and the "
        "PDF if it was put, are deleted if the key may; otherwise delete docpreview-probe/ yourself. `reconcile` will "
        "name the job as one without a record."
    )


def _ask(choice: Choice) -> None:
    if choice.yes:
        return
    if not sys.stdin.isatty():
        fail(["--probe: nobody can be asked here; give --yes if the job may be made. No job was made"], USAGE)
    if not typer.confirm("Make the job?", err=True):
        fail(["--probe: no job was made"], USAGE)


async def _probe(settings: Settings, bucket: Bucket, document: str) -> tuple[dict[str, Any], list[str]]:
    import secrets  # noqa: PLC0415 - as for `load`

    from docpreview_gateway.doctor.checks import cloud_credentials  # noqa: PLC0415
    from docpreview_gateway.doctor.cloud_probe import CloudProbe  # noqa: PLC0415
    from docpreview_gateway.wiring.system_clock import SystemClock  # noqa: PLC0415
    from docpreview_gateway.wiring.upstream import http_transport  # noqa: PLC0415

    endpoint, clock = settings.upstream.endpoint, SystemClock()
    async with http_transport(settings, str(endpoint) if endpoint else None) as cloud:
        credentials = cloud_credentials(settings, clock)
        probe = CloudProbe(cloud, credentials, clock, bucket, nonce=secrets.token_hex(8), document=document)
        return await probe.run(), probe.failed


def _report(settings: Settings, bucket: Bucket, facts: dict[str, Any]) -> str:
    from importlib.metadata import version  # noqa: PLC0415 - as for `load`
    from json import dumps  # noqa: PLC0415

    head = {
        "format": FORMAT,
        "gateway": version("docpreview-gateway"),
        "cloud": "another server (upstream.endpoint)" if settings.upstream.endpoint else "the vendor's",
        "region": bucket.region,
    }
    return dumps(head | {"facts": facts}, indent=2) + "\n"
