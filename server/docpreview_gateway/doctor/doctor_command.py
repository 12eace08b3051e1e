"""The command `docpreview-gateway doctor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from docpreview_gateway.wiring.command_line import USAGE, Config, configured

if TYPE_CHECKING:
    from collections.abc import Iterable

    from docpreview_gateway.doctor.diagnosis import Finding

PROBLEM = 1


def doctor(
    config: Config = None,
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each finding, one a line.")] = False,  # noqa: FBT002 - a flag
) -> None:
    """Check the configuration, this machine, Redis, issuers of tokens and the cloud, and say what to fix.

    "ok" is said only of what an answer proves. No job is created, and no record changed. The exit code is 0 without
    problems (warnings aside), 1 with one, and 2 when the configuration cannot be used and nothing else was checked.
    """
    import asyncio  # noqa: PLC0415

    from docpreview_gateway.doctor.checks import run_checks  # noqa: PLC0415
    from docpreview_gateway.doctor.diagnosis import Finding  # noqa: PLC0415
    from docpreview_gateway.settings.loading import ConfigurationError  # noqa: PLC0415

    try:
        settings = configured(config)
    except ConfigurationError as error:
        todo = "correct the configuration; nothing else was checked"
        parts = [problem.partition(": ") for problem in error.problems]
        found = [Finding("configuration", where if what else "file", what or where, todo) for where, _, what in parts]
        show(found, as_json=json)
        raise typer.Exit(USAGE) from None
    findings = asyncio.run(run_checks(settings))
    show(findings, as_json=json)
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
