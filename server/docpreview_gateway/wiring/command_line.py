"""What the gateway's commands share: their options, the settings, the log, and how they fail."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.settings.loading import Settings

Result = TypeVar("Result")

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; default: the one that DOCPREVIEW_CONFIG names.")
]

LogFormat = Annotated[
    Literal["auto", "json", "console"] | None,
    typer.Option(
        help="Format of log lines; overrides `logging.format`. Its default `auto` is JSON unless stderr is a terminal."
    ),
]


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - called by typer
    if wanted:
        from importlib.metadata import version  # noqa: PLC0415

        typer.echo(f"docpreview-gateway {version('docpreview-gateway')}")
        raise typer.Exit


Version = Annotated[
    bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
]

USAGE = 2
CANNOT_START = 1


def load(config: Path | None, workers: int | None = None, log_format: str | None = None) -> Settings:
    """The settings, with the number of workers and the format of the log that are given, and the log as they say.

    The log is never on stdout. Ends the command by USAGE if they are not valid.
    """
    _import_log_without_rich()
    from docpreview_gateway.settings.loading import ConfigurationError  # noqa: PLC0415 - `--help` should not wait for it

    try:
        settings = configured(config)
    except ConfigurationError as error:
        fail(error.problems, USAGE)
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    if log_format is not None:
        settings = settings.model_copy(update={"logging": settings.logging.model_copy(update={"format": log_format})})
    _configure_log(settings)
    return settings


def _import_log_without_rich() -> None:
    """Have tracebacks written plainly: structlog would take rich, 3 MB of memory, to draw them."""
    if "structlog" in sys.modules or "rich" in sys.modules:
        return
    sys.modules["rich"] = None  # type: ignore[assignment] # an import of it fails, as where it is not installed
    try:
        import_module("structlog")
    finally:
        del sys.modules["rich"]


def configured(config: Path | None) -> Settings:
    """The settings, and the log as they say. ConfigurationError if they are not valid."""
    from docpreview_gateway.settings import loading  # noqa: PLC0415 - as above

    settings = loading.load(config)
    _configure_log(settings)
    return settings


def _configure_log(settings: Settings) -> None:
    """Write the log as the settings say."""
    from docpreview_gateway.telemetry import structured_log  # noqa: PLC0415 - as above

    # gRPC's own lines are no JSON, and strangers cause many; it reads this when it is imported.
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")
    formats = {"auto": None, "json": True, "console": False}
    structured_log.configure(settings.logging.level, json_lines=formats[settings.logging.format])


def run(work: Callable[[], Result], code: int = CANNOT_START) -> Result:
    """The result of `work`. A StartError ends the command with its text and `code`."""
    from docpreview_gateway.settings.loading import StartError  # noqa: PLC0415 - as above

    try:
        return work()
    except StartError as error:
        fail([str(error)], code)


def fail(problems: list[str], code: int) -> NoReturn:
    """End the command."""
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(code)
