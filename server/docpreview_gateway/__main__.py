"""The command `docpreview-gateway`."""

from __future__ import annotations

import os
import sys
from pathlib import Path  # noqa: TC003 - read by the library of commands
from typing import TYPE_CHECKING, Annotated

import typer

from docpreview_gateway.doctor import callback_commands, check_commands, doctor_command, record_commands
from docpreview_gateway.wiring import dev_command
from docpreview_gateway.wiring.command_line import USAGE, Config, LogFormat, Version, fail, load, run

if TYPE_CHECKING:
    from docpreview_gateway.access.directory import Directory
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.model.policy import Decision, Question, Rights
    from docpreview_gateway.settings.loading import Settings

# Pretty tracebacks would show the values of variables, and with them keys.
app = typer.Typer(
    help="gRPC gateway to Tencent Cloud CI document-preview jobs.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
token = typer.Typer(help="Static tokens for callers.", no_args_is_help=True)
policy = typer.Typer(help="Rights of callers.", no_args_is_help=True)
app.add_typer(token, name="token")
app.add_typer(policy, name="policy")
app.add_typer(record_commands.store, name="store")
app.add_typer(callback_commands.callbacks, name="callbacks")
app.command()(record_commands.reconcile)
app.command()(check_commands.check_config)
app.command()(doctor_command.doctor)
app.command(context_settings=dev_command.ALL_WORDS)(dev_command.dev)

Workers = Annotated[
    int | None, typer.Option(min=1, max=64, help="Processes that share the port (Linux); overrides `workers`.")
]

NOT_OK = 1
NOT_READY = 1

_NOT_FOUND = "hidden: NOT_FOUND (JOB_NOT_FOUND), as if there were none"
_HIDDEN = {
    "GetPreviewJob": _NOT_FOUND,
    "WaitPreviewJob": _NOT_FOUND,
    "WatchPreviewJob": _NOT_FOUND,
    "WatchPreviewJobs": "hidden: their ids get the error JOB_NOT_FOUND, as if there were none",
    "BatchGetPreviewJobs": "hidden: their ids are among missing_job_ids",
    "ListPreviewJobs": "hidden: the list leaves them out",
}
"""What calls have in the place of jobs that the caller may not see."""


@app.callback()
def docpreview_gateway(*, version: Version = False) -> None:
    """Options of the command itself."""
    del version  # its callback has done it


@app.command()
def serve(config: Config = None, workers: Workers = None, log_format: LogFormat = None) -> None:
    """Serve until SIGTERM or SIGINT."""
    settings = load(config, workers, log_format)
    check_commands.refuse_bad_start(settings)
    if settings.workers == 1:
        from docpreview_gateway.wiring import event_loop, serving  # noqa: PLC0415 - `--help` should not wait for the server's imports

        if code := run(lambda: event_loop.run(serving.serve(settings))):
            raise typer.Exit(code)
        return
    if config is not None and not config.is_file():
        fail([f"--config {config}: each worker reads it, and it is no file; write it to one"], USAGE)
    import asyncio  # noqa: PLC0415

    from docpreview_gateway.wiring import supervisor  # noqa: PLC0415 - without the memory of gRPC

    options = ("--workers", str(settings.workers), "--log-format", settings.logging.format)
    named = () if config is None else ("--config", str(config))
    command = (sys.executable, "-m", "docpreview_gateway", "worker", *named, *options)
    if code := run(lambda: asyncio.run(supervisor.supervise(settings, command))):
        raise typer.Exit(code)


@app.command(hidden=True)
def worker(  # noqa: PLR0913, PLR0917 - options of a command
    number: Annotated[int, typer.Option()],
    listen: Annotated[str, typer.Option()],
    admin: Annotated[str, typer.Option()],
    workers: Annotated[int, typer.Option()],
    callbacks: Annotated[str, typer.Option()] = "",
    config: Config = None,
    log_format: LogFormat = None,
) -> None:
    """Serve as one of several workers. Internal: `serve` starts it."""
    import structlog  # noqa: PLC0415

    from docpreview_gateway.wiring import event_loop, serving  # noqa: PLC0415
    from docpreview_gateway.wiring.gateway import Worker  # noqa: PLC0415

    settings = load(config, workers, log_format)
    structlog.contextvars.bind_contextvars(worker=number)
    if code := run(lambda: event_loop.run(serving.serve(settings, Worker(listen, admin, callbacks)))):
        raise typer.Exit(code)


@app.command()
def edge_config(
    folder: Annotated[Path, typer.Argument(help="Folder for envoy.yaml and the files that it names.")],
    config: Config = None,
    workers: Workers = None,
) -> None:
    """Write the configuration of the Envoy before this gateway (`edge.listen`) into a folder."""
    from docpreview_gateway.wiring import edge_config as edge  # noqa: PLC0415
    from docpreview_gateway.wiring import edge_files  # noqa: PLC0415
    from docpreview_gateway.wiring.access import tls_material  # noqa: PLC0415
    from docpreview_gateway.wiring.reloading import InvalidFileError  # noqa: PLC0415

    settings = load(config, workers)
    try:
        if settings.tls.certificate is not None:
            tls_material(settings.tls)
        edge_files.write(settings, folder)
    except InvalidFileError as error:
        fail([str(error)], NOT_OK)
    except edge.EdgeError as error:
        fail([str(error)], USAGE)
    except OSError as error:
        fail([f"{folder}: {error.strerror}"], NOT_OK)
    typer.echo(f"envoy {' '.join(edge.arguments(settings, folder))}")


@app.command()
def healthcheck(
    config: Config = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds to wait for the answer.")] = 4.0,
) -> None:
    """Ask the gateway with this configuration on this machine whether it serves; the exit code is 1 if not.

    It prints `ready` when all is well. When the cloud or the store of creates fails, which a restart would not mend,
    the exit code is 0 and the line says what fails.
    """
    from docpreview_gateway.doctor.health_probe import probe  # noqa: PLC0415
    from docpreview_gateway.settings.sections import host_port  # noqa: PLC0415

    health = probe(*host_port(load(config).admin_listen), seconds=timeout)
    if not health.serves:
        fail([health.text], NOT_READY)
    typer.echo(health.text)


@token.command("new")
def token_new(
    out: Annotated[
        Path | None, typer.Option(help="New file for the token, which only its owner may read; print the hash alone.")
    ] = None,
) -> None:
    """Make a token. The first line is for the caller; the second, its hash, is for the policy.

    The token is stored nowhere else than in --out. The exit code is 1 when that cannot be written, or is there already.
    """
    import secrets  # noqa: PLC0415

    from docpreview_gateway.access import tokens  # noqa: PLC0415

    text, token_hash = tokens.new(secrets.token_bytes)
    if out is None:
        typer.echo(text)
    else:
        _write_new(out, text + "\n")
    typer.echo(token_hash)


def _write_new(path: Path, text: str) -> None:
    """Write a file of mode 0600. One that is there stays: callers may be reading it."""
    import os  # noqa: PLC0415

    try:
        with open(path, "x", opener=lambda name, flags: os.open(name, flags, 0o600)) as file:
            file.write(text)
    except FileExistsError:
        fail([f"--out {path}: is there already; name a new file, and put it in the place of that one later"], NOT_OK)
    except OSError as error:
        fail([f"--out {path}: {error.strerror}"], NOT_OK)


@policy.command("explain")
def policy_explain(  # noqa: PLR0913, PLR0917 - options of a command
    caller: Annotated[str, typer.Option(help="Name of the caller in the policy.")],
    method: Annotated[str, typer.Option(help="RPC, such as GetPreviewJob.")],
    bucket: Annotated[str | None, typer.Option(help="Bucket of the source documents, for methods on a bucket.")] = None,
    object: Annotated[str | None, typer.Option(help="Key of the source document, or of an upload.")] = None,  # noqa: A002 - its option's name
    output_bucket: Annotated[str | None, typer.Option(help="Bucket of the results; default: the source's.")] = None,
    output_object: Annotated[str | None, typer.Option(help="Template of the results' keys.")] = None,
    page_object: Annotated[str | None, typer.Option(help="Key of a result: may the caller have its address?")] = None,
    preset: Annotated[str | None, typer.Option(help="Name of a preset.")] = None,
    content_length: Annotated[int | None, typer.Option(help="Bytes of an upload.")] = None,
    content_type: Annotated[
        str | None, typer.Option(help="Media type of an upload; default: that of the suffix.")
    ] = None,
    config: Config = None,
) -> None:
    """Explain whether a caller may make a call, by which rules of the policy, and which others apply to the call.

    The exit code is 0 when it may, sees jobs of --object, and gets the address of --page-object; else 1.
    """
    from docpreview_gateway.model.contract import BUCKET_METHODS, PAGE_URL_METHODS  # noqa: PLC0415
    from docpreview_gateway.model.policy import CREATE, Question  # noqa: PLC0415
    from docpreview_gateway.uploads.plans import type_of  # noqa: PLC0415

    settings = load(config)
    callers = _policy(settings).callers
    if caller not in callers:
        fail([f"--caller {caller}: the policy names {', '.join(sorted(callers))}"], USAGE)
    _check_method(method)
    if bucket is None and method in BUCKET_METHODS:
        fail([f"--bucket: is needed for {method}"], USAGE)
    _check_options(method, output_object, preset, page_object)
    uploads = _check_upload(method, bucket, object, facts=(content_length, content_type))
    asked = Question(
        method,
        bucket if uploads or method in BUCKET_METHODS else None,
        object if uploads or method == CREATE else None,
        output_bucket,
        output_object,
        preset,
        content_length,
        content_type or (type_of(object) if uploads and object is not None else None),
    )
    allowed = _explain_call(callers[caller], asked, settings)
    rights = callers[caller].rights
    if allowed and rights is not None and asked.bucket is not None:
        if object is not None and method in _HIDDEN:
            allowed = _explain_visibility(rights, method, asked.bucket, object)
        if allowed and method in PAGE_URL_METHODS:
            allowed = _explain_pages(rights, asked.bucket, output_bucket or asked.bucket, page_object)
    raise typer.Exit(0 if allowed else NOT_OK)


def _check_method(method: str) -> None:
    from docpreview_gateway.model.contract import METHOD_NAMES  # noqa: PLC0415
    from docpreview_gateway.model.policy import OPERATORS_METHODS  # noqa: PLC0415

    if method not in (known := METHOD_NAMES | OPERATORS_METHODS):
        fail([f"--method {method}: is not a method; there are {', '.join(sorted(known))}"], USAGE)


def _check_options(method: str, output_object: str | None, preset: str | None, page_object: str | None) -> None:
    """Refuse what would decide nothing."""
    from docpreview_gateway.model.contract import PAGE_URL_METHODS  # noqa: PLC0415
    from docpreview_gateway.model.policy import CREATE  # noqa: PLC0415

    for option, given in (("--output-object", output_object), ("--preset", preset)):
        if given is not None and method != CREATE:
            fail([f"{option}: {method} has none; {CREATE} does"], USAGE)
    if page_object is not None and method not in PAGE_URL_METHODS:
        fail([f"--page-object: {method} gives no addresses; {', '.join(sorted(PAGE_URL_METHODS))} do"], USAGE)


def _check_upload(
    method: str, bucket: str | None, key: str | None, *, facts: tuple[int | str | None, int | str | None]
) -> bool:
    """Whether the method asks the rule of uploads. Refuses options that would decide nothing."""
    from docpreview_gateway.model.policy import ABORT_UPLOAD, UPLOADING  # noqa: PLC0415

    if method in UPLOADING:
        if key is not None and bucket is None:
            fail(["--bucket: is needed with --object"], USAGE)
        return True
    if facts != (None, None):
        fail([f"--content-length, --content-type: {method} has none; {' and '.join(UPLOADING)} do"], USAGE)
    if method == ABORT_UPLOAD and key is not None:
        fail([f"--object: {method} asks no rule of uploads: a caller may abort each upload that it began"], USAGE)
    return False


def _explain_call(caller: Caller, asked: Question, settings: Settings) -> bool:
    """Print the decisions on a call, and the rules that apply to it. Whether the caller may make it."""
    from docpreview_gateway.model.applied_rules import applied_rules, budget_warnings  # noqa: PLC0415
    from docpreview_gateway.model.policy import CREATE, CREATE_UPLOAD, explain  # noqa: PLC0415
    from docpreview_gateway.settings.policy_warnings import shared_key_warnings  # noqa: PLC0415

    decisions = explain(caller.rights, asked)
    _echo(decisions)
    allowed = all(decision.allowed for decision in decisions)
    if allowed:
        for rule, what in applied_rules(caller, asked.method, asked.preset):
            typer.echo(f"applies  {rule} {what}")
        warnings = []
        if asked.method == CREATE:
            warnings = budget_warnings(f"callers.{caller.name}.budget", caller, settings.processes)
        elif asked.method == CREATE_UPLOAD and caller.rights is not None:
            warnings = list(shared_key_warnings(caller.rights, settings.buckets, only=asked.bucket))
        for warning in warnings:
            typer.echo(f"warning: {warning}", err=True)
    on = f" on {asked.bucket}" if asked.bucket else ""
    typer.echo(f"{caller.name} {'may' if allowed else 'may not'} call {asked.method}{on}")
    return allowed


def _explain_visibility(rights: Rights, method: str, bucket: str, key: str) -> bool:
    """Print whether the caller sees jobs of a document, and what a call has in their place. Whether it does."""
    decision = rights.of_input(bucket, key)
    typer.echo(f"{'visible' if decision.allowed else 'HIDDEN '}  {decision.rule} {decision.why}")
    typer.echo(f"jobs of {key}: {'as they are' if decision.allowed else _HIDDEN[method]}")
    return decision.allowed


def _explain_pages(rights: Rights, bucket: str, output: str, key: str | None) -> bool:
    """Print which pages of the bucket's jobs the caller may have addresses of. Whether it may have that of `key`."""
    if key is None:
        typer.echo(f"addresses of pages: {', '.join(rights.page_places(bucket)) or 'none'}")
        return True
    decision = rights.of_page(bucket, output, key)
    _echo([decision])
    typer.echo(f"{'an address' if decision.allowed else 'no address'} of {key} in {output}")
    return decision.allowed


def _echo(decisions: list[Decision]) -> None:
    for decision in decisions:
        typer.echo(f"{'allowed' if decision.allowed else 'DENIED '}  {decision.rule} {decision.why}")


def _policy(settings: Settings) -> Directory:
    from docpreview_gateway.wiring.access import load_directory  # noqa: PLC0415
    from docpreview_gateway.wiring.reloading import InvalidFileError  # noqa: PLC0415

    try:
        return load_directory(settings)
    except InvalidFileError as error:
        fail([*error.problems], USAGE)


def main() -> None:
    """Entry point of the installed command."""
    try:
        app()
    except OSError:
        if (problem := _lost_output()) is None:
            raise
        sys.exit(f"error: {problem}")


def _lost_output() -> str | None:
    """Why stdout cannot be written, as when its disk is full; None: it can."""
    try:
        sys.stdout.write("\n")
        sys.stdout.flush()
    except OSError as error:
        # Python would try it again at the end, and print a traceback.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return f"stdout: {error.strerror}"
    return None


if __name__ == "__main__":
    main()
