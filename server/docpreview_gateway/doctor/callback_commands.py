"""The command `docpreview-gateway callbacks configure`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from docpreview_gateway.wiring.command_line import USAGE, Config, fail, load

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from typing import Any, TypeVar

    from docpreview_gateway.callbacks.queue_addresses import QueueAddresses
    from docpreview_gateway.doctor.queue_callbacks import QueueCallbacks, Refused, Seen
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.upstream.wire.queue_notices import NotifyConfig

    Result = TypeVar("Result")

callbacks = typer.Typer(help="Completion callbacks of the cloud's queues.", no_args_is_help=True)

PROBLEM = 1

_QUEUE = "Only the queue with this id; may be repeated. Default: all queues of all configured buckets."
_REMOVE = "Have the queues tell nobody. Queues that tell somebody else are left as they are."
_REPLACE = "Write also queues that tell somebody else, who hears nothing from then on."


@callbacks.callback()
def _group() -> None:
    """With it typer keeps `configure` as a subcommand."""


@callbacks.command("configure")
def configure(
    queue: Annotated[list[str] | None, typer.Option(help=_QUEUE)] = None,
    remove: Annotated[bool, typer.Option("--remove", help=_REMOVE)] = False,  # noqa: FBT002 - a flag
    replace: Annotated[bool, typer.Option("--replace", help=_REPLACE)] = False,  # noqa: FBT002 - a flag
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask before the queues are written.")] = False,  # noqa: FBT002 - a flag
    config: Config = None,
) -> None:
    """Have the cloud's queues tell this deployment the ends of their jobs, those of other tools too.

    Shows whom each queue tells now, asks, writes the address below callbacks.public_url, and looks whether it is there.
    Name and state of a queue stay as they are; tokens are never shown. The key of each bucket needs the rights
    ci:DescribeDocProcessQueues and ci:UpdateDocProcessQueue. The exit code is 0 when all queues are as they should be,
    1 when one is not, and 2 when the configuration is wrong or nobody agrees.
    """
    if remove and replace:
        fail(["--replace: --remove replaces no address; give one of them"], USAGE)
    settings = load(config)
    addresses = _addresses(settings)
    seen, refused = _survey(settings, frozenset(queue or ()))
    plan = [(each, _wanted(each, addresses, remove=remove, replace=replace)) for each in seen]
    for each, wanted in plan:
        _show(each, addresses, wanted, remove=remove)
    if not remove:
        refused += [_kept(each) for each, wanted in plan if each.standing == "foreign" and wanted is None]
    todo = [(each, wanted) for each, wanted in plan if wanted is not None]
    if todo and not yes:
        _ask(len(todo))
    refused += _write(settings, addresses, todo)
    if refused:
        fail([each.text for each in refused], PROBLEM)
    if not todo:
        typer.echo("ok: there is nothing to change")


def _addresses(settings: Settings) -> QueueAddresses:
    from docpreview_gateway.doctor.queue_callbacks import queue_addresses  # noqa: PLC0415 - as for `load`
    from docpreview_gateway.storage.key_file import KeyFileError  # noqa: PLC0415

    if settings.callbacks.public_url is None:
        fail(["callbacks.public_url: is not set, so there is no address that queues could tell; set it"], USAGE)
    try:
        return queue_addresses(settings)
    except KeyFileError as error:
        fail([f"{error}. The address is made of this secret: name that of the deployment in ledger.key_file"], USAGE)


def _survey(settings: Settings, wanted: frozenset[str]) -> tuple[list[Seen], list[Refused]]:
    """The queues, and buckets whose queues cannot be read. Ends the command for an id that no bucket has."""
    from docpreview_gateway.doctor.queue_callbacks import Refused  # noqa: PLC0415

    async def look(queues: QueueCallbacks) -> list[list[Seen] | Refused]:
        return [await queues.seen(bucket.bucket()) for bucket in settings.buckets]

    found = _run(settings, look)
    refused = [each for each in found if isinstance(each, Refused)]
    seen = [each for of_bucket in found if not isinstance(of_bucket, Refused) for each in of_bucket]
    if unknown := wanted - {each.queue.queue_id for each in seen}:
        ids = ", ".join(each.name for each in seen) or "none"
        problem = f"--queue {', '.join(sorted(unknown))}: is no queue of a configured bucket; there are: {ids}"
        fail([*(each.text for each in refused), problem], PROBLEM if refused else USAGE)
    return [each for each in seen if not wanted or each.queue.queue_id in wanted], refused


def _wanted(seen: Seen, addresses: QueueAddresses, *, remove: bool, replace: bool) -> NotifyConfig | None:
    """What to write; None: the queue stays as it is."""
    from docpreview_gateway.upstream.wire.queue_notices import NotifyConfig  # noqa: PLC0415

    if remove:
        return NotifyConfig() if seen.standing in {"wanted", "outdated"} else None
    if seen.standing == "wanted" or (seen.standing == "foreign" and not replace):
        return None
    return addresses.wanted(seen.bucket.name)


def _show(seen: Seen, addresses: QueueAddresses, wanted: NotifyConfig | None, *, remove: bool) -> None:
    name, queue = seen.bucket.name, seen.queue
    typer.echo(f"{seen.name}, {queue.name} ({queue.state})")
    typer.echo(f"  tells now:      {addresses.shown(name, queue.notify)}")
    if wanted is None and seen.standing == "foreign":
        typer.echo("  is left alone:  it tells somebody else" + ("" if remove else "; --replace writes it"))
    else:
        typer.echo(f"  is to tell:     {'the same' if wanted is None else addresses.shown(name, wanted)}")


def _kept(seen: Seen) -> Refused:
    from docpreview_gateway.doctor.queue_callbacks import Refused  # noqa: PLC0415

    problem = "tells somebody else, and was left as it is: its jobs are polled"
    remedy = "ask its operator; --replace writes it, and then the other receiver hears nothing any more"
    return Refused(seen.name, problem, remedy)


def _ask(count: int) -> None:
    if not sys.stdin.isatty():
        fail(["nobody can be asked here; give --yes if the queues may be written. Nothing was written"], USAGE)
    if not typer.confirm(f"Write {count} queue{'' if count == 1 else 's'}?", err=True):
        fail(["nothing was written"], USAGE)


def _write(settings: Settings, addresses: QueueAddresses, todo: Sequence[tuple[Seen, NotifyConfig]]) -> list[Refused]:
    """Write queue by queue; one that is refused does not stop the others. Returns those that are not as wanted."""

    async def write(queues: QueueCallbacks) -> list[Refused]:
        refused = []
        for seen, notify in todo:
            if (problem := await queues.written(seen, notify)) is None:
                shown = addresses.shown(seen.bucket.name, notify)
                typer.echo(f"ok: {seen.name} tells {shown}; the cloud says that this takes effect in five minutes")
            else:
                refused.append(problem)
        return refused

    return _run(settings, write)


def _run(settings: Settings, work: Callable[[QueueCallbacks], Coroutine[Any, Any, Result]]) -> Result:
    """The result of `work`, connected to the cloud. Ends the command when the keys cannot be read."""
    import asyncio  # noqa: PLC0415

    from docpreview_gateway.doctor.checks import queue_callbacks  # noqa: PLC0415
    from docpreview_gateway.wiring.reloading import InvalidFileError  # noqa: PLC0415

    async def connected() -> Result:
        async with queue_callbacks(settings) as queues:
            return await work(queues)

    try:
        return asyncio.run(connected())
    except InvalidFileError as error:
        fail([*error.problems], USAGE)
