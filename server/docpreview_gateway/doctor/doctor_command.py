"""The command `docpreview-gateway doctor`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from docpreview_gateway.doctor import probe_command
from docpreview_gateway.doctor.probe_command import Choice
from docpreview_gateway.wiring.command_line import USAGE, Config, configured, fail

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview_gateway.doctor.diagnosis import Finding

PROBLEM = 1

REPORT = Path("docpreview-probe.json")

_PROBE = (
    "After the checks, make one job of one page at the cloud, which bills it, and record what its replies are like."
)
_WEBHOOKS = "Send each webhook target of the policy a signed test event."
_REPORT = "With --probe: file for the record, without names, keys and ids."


def doctor(  # noqa: PLR0913, PLR0917 - options of a command
    config: Config = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each finding, one a line.")] = False,  # noqa: FBT002 - a flag
    webhooks: Annotated[bool, typer.Option("--webhooks", help=_WEBHOOKS)] = False,  # noqa: FBT002 - a flag
    probe: Annotated[bool, typer.Option("--probe", help=_PROBE)] = False,  # noqa: FBT002 - a flag
    yes: Annotated[bool, typer.Option("--yes", help="With --probe: do not ask before the job is made.")] = False,  # noqa: FBT002 - a flag
    bucket: Annotated[str | None, typer.Option(help="With --probe: its bucket; default: the first one.")] = None,
    document: Annotated[
        str | None,
        typer.Option(help="With --probe: key of a document in the bucket; default: one is put, and deleted."),
    ] = None,
    report: Annotated[Path | None, typer.Option(help=_REPORT, show_default=str(REPORT))] = None,
) -> None:
    """Check the configuration, this machine, Redis, issuers of tokens and the cloud, and say what to fix.

    "ok" is said only of what an answer proves. No job is created, and no record changed. The exit code is 0 without
    problems (warnings aside), 1 with one, and 2 when the configuration cannot be used and nothing else was checked.
    With --probe, which makes a job, it is 1 too when a step of the probe fails, and 2 when it is not agreed to.
    """
    import asyncio  # noqa: PLC0415

    from docpreview_gateway.doctor.checks import run_checks  # noqa: PLC0415
    from docpreview_gateway.doctor.diagnosis import Finding  # noqa: PLC0415
    from docpreview_gateway.settings.loading import ConfigurationError  # noqa: PLC0415

    given = {"--yes": yes or None, "--bucket": bucket, "--document": document, "--report": report}
    if not probe and (named := [option for option, value in given.items() if value is not None]):
        fail([f"{', '.join(named)}: what {'they say' if len(named) > 1 else 'it says'} is for --probe"], USAGE)
    try:
        settings = configured(config)
    except ConfigurationError as error:
        todo = "correct the configuration; nothing else was checked"
        parts = [problem.partition(": ") for problem in error.problems]
        found = [Finding("configuration", where if what else "file", what or where, todo) for where, _, what in parts]
        show(found, as_json=json)
        raise typer.Exit(USAGE) from None
    findings = asyncio.run(run_checks(settings, send_events=webhooks, config=config))
    show(findings, as_json=json)
    if probe:
        probe_command.run(settings, findings, Choice(bucket, document or "", report or REPORT, yes=yes))
    raise typer.Exit(0 if all(finding.ok for finding in findings) else PROBLEM)


def show(findings: Iterable[Finding], *, as_json: bool) -> None:
    """Print the findings, each with what to do."""
    from json import dumps  # noqa: PLC0415

    marks = {"ok": "ok", "warning": "warning", "problem": "PROBLEM"}
    for finding in findings:
        if as_json:
            typer.echo(dumps(finding.as_json()))
            continue
        typer.echo(f"{marks[finding.level]:7}  {finding.check:11}  {finding.subject}: {finding.result}")
        if finding.remedy:
            typer.echo(f"         to do: {finding.remedy}")
