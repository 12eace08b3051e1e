"""The command `docpreview-gateway check-config`, and the same checks before `serve` starts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from docpreview_gateway.wiring.command_line import CANNOT_START, USAGE, Config, fail, load

if TYPE_CHECKING:
    from docpreview_gateway.settings.loading import Settings


_ELSEWHERE = "The gateway runs on another machine: leave addresses and state_dir out."


def check_config(
    config: Config = None,
    elsewhere: Annotated[bool, typer.Option("--elsewhere", help=_ELSEWHERE)] = False,  # noqa: FBT002 - a flag
) -> None:
    """Find all that `serve` would not start with, and name every mistake with its setting and path.

    Neither the cloud nor Redis is asked: `doctor` does that. What has no effect, and a port that another program than
    this gateway has now, is a warning. The exit code is 0 without mistakes, else 2.
    """
    from docpreview_gateway.doctor.port_checks import ports  # noqa: PLC0415 - as for `load`
    from docpreview_gateway.wiring.preflight import machine_problems  # noqa: PLC0415

    settings = load(config)
    found = [] if elsewhere else list(ports(settings))
    mistakes = [*file_problems(settings), *([] if elsewhere else machine_problems(settings))]
    mistakes += [port.problem for port in found if port.problem and not port.in_use]
    if mistakes:
        fail(mistakes, USAGE)
    if settings.policy.file is not None:
        typer.echo(f"ok: {_callers(settings)} caller(s)")
    secrets = [] if elsewhere else _webhook_warnings(settings)
    for warning in [*_warnings(settings), *secrets, *(port.problem for port in found if port.problem)]:
        typer.echo(f"warning: {warning}", err=True)
    for port in found:
        if port.in_use and not port.problem:
            typer.echo(f"ok: {port.setting}: {port.result}")
    typer.echo(f"ok: {len(settings.buckets)} bucket(s), gRPC on {settings.listen}, admin on {settings.admin_listen}")


def refuse_bad_start(settings: Settings) -> None:
    """End `serve` when something of this machine would end it later; every reason is told at once.

    Files are read by the start itself, and here only when there is something else to tell.
    """
    from docpreview_gateway.wiring.preflight import machine_problems, port_problems  # noqa: PLC0415 - as for `load`

    if found := [*machine_problems(settings), *(problem.text for problem in port_problems(settings))]:
        fail([*file_problems(settings), *found], CANNOT_START)


def file_problems(settings: Settings) -> list[str]:
    """Mistakes in the files that the settings name."""
    from prometheus_client import CollectorRegistry  # noqa: PLC0415

    from docpreview_gateway.telemetry.prometheus_access import PrometheusAccess  # noqa: PLC0415
    from docpreview_gateway.wiring import access  # noqa: PLC0415
    from docpreview_gateway.wiring.system_clock import SystemClock  # noqa: PLC0415

    problems = access.file_problems(settings, SystemClock(), PrometheusAccess(CollectorRegistry()))
    return [*problems, *_key_file_problems(settings)]


def _warnings(settings: Settings) -> list[str]:
    """What has no effect, or defeats its purpose."""
    from docpreview_gateway.model.applied_rules import budget_warnings  # noqa: PLC0415
    from docpreview_gateway.model.callers import ANONYMOUS  # noqa: PLC0415
    from docpreview_gateway.settings.policy_warnings import policy_warnings  # noqa: PLC0415

    if settings.policy.file is not None:
        return policy_warnings(settings.policy.file, settings.processes, settings.buckets)
    anonymous = settings.limits.anonymous.caller(ANONYMOUS.name)
    return budget_warnings("limits.anonymous.budget", anonymous, settings.processes)


def _webhook_warnings(settings: Settings) -> list[str]:
    """Targets that get nothing, since their secrets are missing; the gateway starts all the same."""
    from docpreview_gateway.webhooks.secret_files import unusable  # noqa: PLC0415 - as for `load`
    from docpreview_gateway.wiring.access import load_directory  # noqa: PLC0415

    if settings.policy.file is None:
        return []
    targets = load_directory(settings).webhooks.values()
    found = ((target, unusable(target.secret_file)) for target in targets)
    return [f"webhooks.{target.name}.secret_file: {target.secret_file}: {why}" for target, why in found if why]


def _callers(settings: Settings) -> int:
    from docpreview_gateway.wiring.access import load_directory  # noqa: PLC0415
    from docpreview_gateway.wiring.reloading import InvalidFileError  # noqa: PLC0415

    try:
        return len(load_directory(settings).callers)
    except InvalidFileError as error:
        fail([*error.problems], USAGE)


def _key_file_problems(settings: Settings) -> list[str]:
    from docpreview_gateway.storage.key_file import KeyFileError, read_secrets  # noqa: PLC0415

    if settings.ledger.key_file is None:
        return []
    try:
        read_secrets(settings.ledger.key_file)
    except KeyFileError as error:
        return [f"ledger.key_file: {error}"]
    return []
