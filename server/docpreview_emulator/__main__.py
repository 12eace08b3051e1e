"""The command `docpreview-emulator`."""

import asyncio
import ipaddress
import logging
import math
import os
import re
import shutil
import signal
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Annotated

import typer

from docpreview_emulator.emulator import Emulator
from docpreview_emulator.errors import MissingExtraError, StorageError
from docpreview_emulator.model import DEFAULT_CREDENTIAL, Credential
from docpreview_emulator.paths import given_path
from docpreview_emulator.sandbox import DESCRIPTIONS
from docpreview_emulator.settings import MOST_EMPTY_PAGES, Settings

_NAME = re.compile(r"[A-Za-z0-9._-]+|\[?[0-9A-Fa-f:.]+\]?")
_ORIGIN = re.compile(r"https?://[^/\s]+")

_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0))}
_CONTROLS |= {code: f"\\u{code:04x}" for code in (0x2028, 0x2029)}


class _Lines(logging.Formatter):
    """One line for each record: keys and hosts of requests may have line breaks and commands of terminals."""

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802 - the standard library's name
        return super().formatMessage(record).translate(_CONTROLS)


# Pretty tracebacks would show the values of variables, and with them keys.
app = typer.Typer(
    help="Emulator of Tencent Cloud CI document-preview jobs that really renders.", pretty_exceptions_enable=False
)


def _print_version(wanted: bool) -> None:  # noqa: FBT001 - called by typer
    if wanted:
        typer.echo(f"docpreview-emulator {version('docpreview-gateway')}")
        raise typer.Exit


@app.callback()
def docpreview_emulator(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Options of the command itself; with it typer keeps `serve` as a subcommand."""
    del version  # its callback has done it


def is_loopback(host: str) -> bool:
    """Whether an address is reachable from this machine only."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _finite(seconds: float) -> float:
    if not math.isfinite(seconds):
        raise typer.BadParameter(f"{seconds} is not a number of seconds.")
    return seconds


_DEFAULTS = Settings()
_MOST = 1_000_000
"""Of any limit: a terabyte, or eleven days."""

DataDir = Annotated[
    Path | None,
    typer.Option(
        parser=given_path,
        metavar="PATH",
        help="Where jobs and objects are stored; without it they are deleted at exit.",
    ),
]
SecretKey = Annotated[str, typer.Option(envvar="DOCPREVIEW_EMULATOR_SECRET_KEY", show_default=False)]
EmptyPages = Annotated[int, typer.Option(help="Empty pages before each page of a list.", min=0, max=MOST_EMPTY_PAGES)]
Strict = Annotated[bool, typer.Option("--strict", help="Only buckets that were created exist, each in its region.")]
CorsOrigin = Annotated[
    list[str] | None,
    typer.Option(help="Origin of pages whose scripts may use object hosts, such as http://localhost:3000; * is all."),
]
Workers = Annotated[int, typer.Option(help="Documents that are converted at the same time.", min=1)]
ConversionTimeout = Annotated[float, typer.Option(help="Seconds that a conversion may take.", min=1, max=_MOST)]
MaxCpuTime = Annotated[int, typer.Option(help="Seconds of CPU time that a conversion may take.", min=1, max=_MOST)]
MaxMemory = Annotated[
    int, typer.Option(help="MiB of memory that each process of a conversion may take.", min=512, max=_MOST)
]
MaxFiles = Annotated[
    int, typer.Option(help="MiB of files that a conversion may write, pages included.", min=1, max=_MOST)
]
MaxUnpacked = Annotated[int, typer.Option(help="MiB that an Office document may unpack to.", min=1, max=_MOST)]
MaxPageMegapixels = Annotated[int, typer.Option(help="Megapixels that one image may have.", min=1, max=_MOST)]
MaxJobMegapixels = Annotated[
    int, typer.Option(help="Megapixels that all images of a document may have.", min=1, max=_MOST)
]
ControlHost = Annotated[
    list[str] | None,
    typer.Option(
        envvar="DOCPREVIEW_EMULATOR_CONTROL_HOST",
        help="Another name by which the page and /_emulator/ may be called; may be repeated.",
    ),
]
Tls = Annotated[bool, typer.Option("--tls", help="Speak TLS and HTTP CONNECT on the port, too.")]
CaOut = Annotated[
    Path | None,
    typer.Option(
        parser=given_path,
        metavar="PATH",
        help="Where to write the certificate of the authority that clients have to trust.",
    ),
]
SubmitDelay = Annotated[float, typer.Option(help="Seconds a job is Submitted.", min=0, callback=_finite)]
RunDelay = Annotated[float, typer.Option(help="Seconds a job is Running before its work.", min=0, callback=_finite)]
ListDelay = Annotated[float, typer.Option(help="Seconds until lists show a new job.", min=0, callback=_finite)]


@app.command()
def serve(  # noqa: PLR0913 - one argument for each option of the command
    *,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 takes a free one.", min=0, max=65535)] = 8089,
    data_dir: DataDir = None,
    allow_remote: Annotated[bool, typer.Option("--allow-remote", help="Allow a --host that is not loopback.")] = False,
    control_host: ControlHost = None,
    tls: Tls = False,
    ca_out: CaOut = None,
    secret_id: Annotated[str, typer.Option(envvar="DOCPREVIEW_EMULATOR_SECRET_ID")] = DEFAULT_CREDENTIAL.secret_id,
    secret_key: SecretKey = DEFAULT_CREDENTIAL.secret_key,
    token: Annotated[str | None, typer.Option(envvar="DOCPREVIEW_EMULATOR_TOKEN")] = None,
    submit_delay: SubmitDelay = _DEFAULTS.submit_delay,
    run_delay: RunDelay = 0.0,
    list_delay: ListDelay = 0.0,
    empty_pages: EmptyPages = 0,
    strict: Strict = False,
    cors_origin: CorsOrigin = None,
    no_echo: Annotated[bool, typer.Option("--no-echo", help="Answers do not show the UserData of creates.")] = False,
    workers: Workers = _DEFAULTS.workers,
    conversion_timeout: ConversionTimeout = _DEFAULTS.conversion_timeout,
    max_cpu_time: MaxCpuTime = _DEFAULTS.max_cpu_time,
    max_memory: MaxMemory = _DEFAULTS.max_memory,
    max_files: MaxFiles = _DEFAULTS.max_files,
    max_unpacked: MaxUnpacked = _DEFAULTS.max_unpacked,
    max_page_megapixels: MaxPageMegapixels = _DEFAULTS.max_page_megapixels,
    max_job_megapixels: MaxJobMegapixels = _DEFAULTS.max_job_megapixels,
) -> None:
    """Serve until SIGTERM or SIGINT."""
    given = locals()  # most options have the name of a setting
    if not allow_remote and not is_loopback(host):
        raise typer.BadParameter(f"{host} is not loopback: add --allow-remote to let other machines connect.")
    if not secret_id or not secret_key:
        raise typer.BadParameter("--secret-id and --secret-key must not be empty: nobody could sign a request.")
    if ca_out is not None and not tls:
        raise typer.BadParameter("--ca-out needs --tls: without it there is no authority.")
    handler = logging.StreamHandler()
    handler.setFormatter(_Lines("%(asctime)s %(levelname)s %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    os.umask(0o077)  # for the files of libraries and of LibreOffice, too
    credentials = [Credential(secret_id, secret_key, token)]
    named = {setting.name: given[setting.name] for setting in fields(Settings) if setting.name in given}
    named |= {"echo_user_data": not no_echo, "control_hosts": _hosts(control_host or [])}
    settings = Settings(cors_origins=_origins(cors_origin or []), **named)
    emulator = Emulator(data_dir, host=host, port=port, credentials=credentials, settings=settings)
    try:
        asyncio.run(_serve(emulator, tls=tls, ca_out=ca_out))
    except (MissingExtraError, StorageError, OSError) as error:
        typer.echo(f"docpreview-emulator: {_problem(error, host, port)}", err=True)
        raise typer.Exit(1) from None


def _problem(error: Exception, host: str, port: int) -> str:
    if not isinstance(error, OSError):
        return str(error)
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    reason = (error.strerror or str(error)).partition(" (")[0]
    return f"{host}:{port} cannot be listened on: {reason}. Choose another --host or --port (0 takes a free one)."


def _origins(given: list[str]) -> tuple[str, ...]:
    for origin in given:
        if origin != "*" and not _ORIGIN.fullmatch(origin):
            raise typer.BadParameter(f"--cors-origin {origin} is no origin, such as http://localhost:3000, nor *.")
    return tuple(given)


def _hosts(given: list[str]) -> tuple[str, ...]:
    for host in given:
        if not _NAME.fullmatch(host):
            raise typer.BadParameter(f"--control-host {host} is no host such as emulator.local.")
    return tuple(given)


async def _serve(emulator: Emulator, *, tls: bool, ca_out: Path | None) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup wants it to go on
            loop.add_signal_handler(number, stop.set)
    async with emulator:
        if ca_out is not None:
            _publish(emulator.ca_file, ca_out)
        typer.echo(f"docpreview-emulator listens on {emulator.url}")
        if tls:
            typer.echo(f"by TLS, too, for clients that trust the authority in {ca_out or emulator.ca_file}")
        typer.echo(f"documents are opened in processes {DESCRIPTIONS[await emulator.isolation()]}")
        typer.echo(await emulator.renderers())
        for text in await emulator.shortcomings():
            typer.echo(f"warning: {text}", err=True)
        await stop.wait()


def _publish(certificate: Path, copy: Path) -> None:
    shutil.copyfile(certificate, copy)
    copy.chmod(0o644)  # it is no secret, and the programs that trust it may be another user's


def main() -> None:
    """Run the command."""
    app(prog_name="docpreview-emulator")


if __name__ == "__main__":
    main()
