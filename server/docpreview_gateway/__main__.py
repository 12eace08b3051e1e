"""The command `docpreview-gateway`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.settings import Settings

Result = TypeVar("Result")

app = typer.Typer(help="gRPC gateway to Tencent Cloud CI document-preview jobs.", no_args_is_help=True)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; default: the one that DOCPREVIEW_CONFIG names.")
]

USAGE = 2
CANNOT_START = 1


@app.command()
def serve(
    config: Config = None,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Processes that share the port (Linux); overrides `workers`.")
    ] = None,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    import asyncio  # noqa: PLC0415 - `--help` should not wait for the server's imports

    settings = _load(config)
    if workers is not None:
        settings = settings.model_copy(update={"workers": workers})
    _configure_log(settings)
    if settings.workers == 1:
        from docpreview_gateway import wiring  # noqa: PLC0415

        _run(lambda: asyncio.run(wiring.serve(settings)))
        return
    from docpreview_gateway import supervisor  # noqa: PLC0415 - which does without gRPC and all that is above it

    named = () if config is None else ("--config", str(config))
    command = (sys.executable, "-m", "docpreview_gateway", "worker", *named)
    if code := _run(lambda: asyncio.run(supervisor.supervise(settings, command))):
        raise typer.Exit(code)


@app.command(hidden=True)
def worker(
    number: Annotated[int, typer.Option()],
    listen: Annotated[str, typer.Option()],
    admin: Annotated[str, typer.Option()],
    config: Config = None,
) -> None:
    """Serve as one of several workers; started by `serve`, and only of use to it."""
    import asyncio  # noqa: PLC0415

    import structlog  # noqa: PLC0415

    from docpreview_gateway import wiring  # noqa: PLC0415

    settings = _load(config)
    _configure_log(settings)
    structlog.contextvars.bind_contextvars(worker=number)
    _run(lambda: asyncio.run(wiring.serve(settings, wiring.Worker(listen, admin))))


@app.command()
def check_config(config: Config = None) -> None:
    """Read the configuration as `serve` would, and name every mistake with its path."""
    settings = _load(config)
    typer.echo(f"ok: {len(settings.buckets)} bucket(s), gRPC on {settings.listen}, admin on {settings.admin_listen}")


def _configure_log(settings: Settings) -> None:
    from docpreview_gateway.adapters import structured_log  # noqa: PLC0415

    formats = {"auto": None, "json": True, "console": False}
    structured_log.configure(settings.logging.level, json_lines=formats[settings.logging.format])


def _run(work: Callable[[], Result]) -> Result:
    from docpreview_gateway.settings import StartError  # noqa: PLC0415

    try:
        return work()
    except StartError as error:
        _fail([str(error)], CANNOT_START)


def _load(config: Path | None) -> Settings:
    from docpreview_gateway.settings import ConfigurationError, load  # noqa: PLC0415

    try:
        return load(config)
    except ConfigurationError as error:
        _fail(error.problems, USAGE)


def _fail(problems: list[str], code: int) -> NoReturn:
    for problem in problems:
        typer.echo(f"error: {problem}", err=True)
    raise typer.Exit(code)


def main() -> None:
    """Entry point of the installed command."""
    app()


if __name__ == "__main__":
    main()
