"""The commands `docpreview-gateway reconcile` and `docpreview-gateway store`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from docpreview_gateway.wiring.command_line import USAGE, Config, fail, load, run

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

store = typer.Typer(help="The records of creates.", no_args_is_help=True)

PROBLEM = 1


def reconcile(
    since: Annotated[str, typer.Option(help="A day such as 2026-11-28, or an instant; UTC unless it says otherwise.")],
    charge: Annotated[bool, typer.Option("--charge", help="Give jobs without a record one, and count them.")] = False,  # noqa: FBT002 - a flag
    json: Annotated[bool, typer.Option("--json", help="Print a JSON object for each finding, one a line.")] = False,  # noqa: FBT002 - a flag
    config: Config = None,
) -> None:
    """Compare the cloud's lists of jobs with the records of creates: jobs without one, second jobs, wrong page counts.

    A gateway may run meanwhile. Nothing is changed without --charge. The exit code is 0 when all agrees, 1 when there
    are findings, 3 when the cloud or the records could not be read to the end.
    """
    import asyncio  # noqa: PLC0415
    from json import dumps  # noqa: PLC0415

    from docpreview_gateway.doctor import record_texts, records  # noqa: PLC0415
    from docpreview_gateway.wiring.system_clock import SystemClock  # noqa: PLC0415

    settings = load(config)
    try:
        begin = record_texts.time_of(since, SystemClock().now())
    except ValueError as error:
        fail([f"--since {since}: {error}"], USAGE)
    found, counters = _run(lambda: asyncio.run(records.reconcile(settings, begin, charge=charge)))
    lines = [line for bucket in found for line in record_texts.lines(bucket)]
    lines += record_texts.counter_lines(counters)
    for line in lines:
        if json:
            typer.echo(dumps({**line._asdict(), "ok": not line.remedy}))
            continue
        subject = f"{line.bucket} {line.job_id}".strip()
        typer.echo(f"{'FOUND  ' if line.remedy else 'ok     '}  {line.kind:10}  {subject}: {line.result}")
        if line.remedy:
            typer.echo(f"         to do: {line.remedy}")
    raise typer.Exit(record_texts.exit_code(lines))


@store.command("status")
def status(config: Config = None) -> None:
    """Say whether the records of creates are whole, how many there are, and what to do next.

    The exit code is 0 when they are whole, 1 when the store is lost, empty, not ready, made with a secret that is
    missing here, or has records that cannot be read, 2 when the configuration is wrong, 3 when the store cannot be
    read: no connection, a full disk, or no such file.
    """
    import asyncio  # noqa: PLC0415

    from docpreview_gateway.doctor import record_texts, records  # noqa: PLC0415

    settings = load(config)
    found = _run(lambda: asyncio.run(records.store_status(settings)))
    for line in record_texts.status_lines(found):
        typer.echo(line)
    raise typer.Exit(0 if found.kind == "whole" and not found.unreadable else PROBLEM)


@store.command("accept-loss")
def accept_loss(config: Config = None) -> None:
    """End a loss of records that a gateway has noted, without what is missing: gateways go on within seconds.

    Given up are the records that are missing: a request_id without its record makes, and bills, a second job when its
    create is repeated, and used pages may count from 0 again. Until then creates with request_id, without one
    those of callers with a page budget, and, unless the cloud shows whose jobs they are, all creates in `exclusive`
    buckets are refused. A secret that is missing in ledger.key_file is given up too; a gateway that still has it brings
    it back with its next record. `reconcile --charge` finds afterwards jobs that are younger than
    ledger.retention_seconds, if the cloud shows whose they are; a rebuild would find those of a month. The exit code
    is 0 also when nothing was lost, 2 when the configuration is wrong, 3 when the store cannot be read.
    """
    import asyncio  # noqa: PLC0415

    from docpreview_gateway.doctor import record_texts, records  # noqa: PLC0415

    settings = load(config)
    budgets = _run(lambda: records.counted_callers(settings))
    before = _run(lambda: asyncio.run(records.accept_loss(settings)))
    for line in record_texts.accepted_lines(before, budgets):
        typer.echo(line)


def _run(work: Callable[[], Result]) -> Result:
    """The result of `work`. A store that cannot be read ends the command, with what to do about it."""
    from docpreview_gateway.doctor import record_texts, records  # noqa: PLC0415

    def tried() -> Result:
        try:
            return work()
        except records.UnreadStoreError as error:
            problem = f"the store cannot be read: {error}\n       to do: {error.remedy}"
            fail([problem], record_texts.INCOMPLETE)

    return run(tried, record_texts.INCOMPLETE)
