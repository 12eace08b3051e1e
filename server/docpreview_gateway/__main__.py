"""The command `docpreview-gateway`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

if TYPE_CHECKING:
    from docpreview_gateway.settings import Settings

app = typer.Typer(help="gRPC gateway to Tencent Cloud CI document-preview jobs.", no_args_is_help=True)

Config = Annotated[
    Path | None, typer.Option("--config", "-c", help="YAML file; default: the one that DOCPREVIEW_CONFIG names.")
]

USAGE = 2
CANNOT_START = 1


@app.command()
def serve(config: Config = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    import asyncio  # noqa: PLC0415 - `--help` should not wait for the server's imports

    from docpreview_gateway import wiring  # noqa: PLC0415
    from docpreview_gateway.adapters import structured_log  # noqa: PLC0415

    settings = _load(config)
    formats = {"auto": None, "json": True, "console": False}
    structured_log.configure(settings.logging.level, json_lines=formats[settings.logging.format])
    try:
        asyncio.run(wiring.serve(settings))
    except wiring.StartError as error:
        _fail([str(error)], CANNOT_START)


@app.command()
def check_config(config: Config = None) -> None:
    """Read the configuration as `serve` would, and name every mistake with its path."""
    settings = _load(config)
    typer.echo(f"ok: {len(settings.buckets)} bucket(s), gRPC on {settings.listen}, admin on {settings.admin_listen}")


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
