"""What all commands share: options, connection, errors and exit codes."""

import asyncio
import functools
import inspect
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import fields, is_dataclass
from typing import Any, NoReturn

import typer

from docpreview_client.cli import exit_codes
from docpreview_client.cli.exit_codes import ExitCode
from docpreview_client.cli.field_names import FieldNames
from docpreview_client.cli.json_view import JsonView
from docpreview_client.cli.parameters import ConnectionOptions
from docpreview_client.cli.session import Session
from docpreview_client.cli.text_view import TextView
from docpreview_client.cli.views import View
from docpreview_client.client import DocPreviewClient
from docpreview_client.errors import DocPreviewError

Work = Callable[[Session], Awaitable[ExitCode]]


def spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator that turns the fields of a function's dataclass parameters into options."""
    taken = inspect.signature(function).parameters.values()
    groups: dict[str, Any] = {one.name: one.annotation for one in taken if is_dataclass(one.annotation)}

    def gathered(**values: Any) -> Any:  # noqa: ANN401 - whatever the function takes and returns
        for name, group in groups.items():
            values[name] = group(**{field.name: values.pop(field.name) for field in fields(group)})
        return function(**values)

    return _with_parameters(
        gathered, like=function, parameters=[option for one in taken for option in _options_of(one)]
    )


def command(function: Callable[..., Awaitable[ExitCode]]) -> Callable[..., Any]:
    """A decorator that makes a command of an async function, which takes a Session and returns the exit code."""
    own = list(inspect.signature(function).parameters.values())[1:]
    context = inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, annotation=typer.Context)
    connection = inspect.Parameter("connection", inspect.Parameter.KEYWORD_ONLY, annotation=ConnectionOptions)

    def run(*, context: typer.Context, connection: ConnectionOptions, **values: Any) -> NoReturn:  # noqa: ANN401
        options = connection.over(context.obj)
        view: View = JsonView() if options.json else TextView(FieldNames(function.__name__))
        raise typer.Exit(_run(lambda session: function(session, **values), options=options, view=view))

    return spread(_with_parameters(run, like=function, parameters=[*own, context, connection]))


def _run(work: Work, *, options: ConnectionOptions, view: View) -> ExitCode:
    try:
        return asyncio.run(_in_session(work, options=options, view=view))
    except DocPreviewError as error:
        code = exit_codes.of_error(error)
        view.error(error, exit_code=code)
        return code
    except (KeyboardInterrupt, asyncio.CancelledError):
        view.note("Interrupted. Jobs that were created continue.")
        return ExitCode(128 + _signals[-1]) if _signals else ExitCode.INTERRUPTED


async def _in_session(work: Work, *, options: ConnectionOptions, view: View) -> ExitCode:
    _be_woken_by_interrupts()
    try:
        client = DocPreviewClient(options.address(), tls=options.encryption(), token=options.token())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error
    async with client:
        session = Session(client=client, view=view, timeout=options.deadline(), connection=options.words())
        return await work(session)


def _be_woken_by_interrupts() -> None:
    """Ctrl-C ends the running task at once; Python alone may notice it only when the loop wakes for something else.

    So do SIGTERM and SIGHUP, which would end the process without a word of what was begun.
    """
    task, loop = asyncio.current_task(), asyncio.get_running_loop()
    if task is None:
        return

    def end(number: int) -> None:
        _signals.append(number)
        task.cancel()

    for number in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
        # Not on Windows, where the loop wakes by itself, and not beside the main thread, which Ctrl-C does not reach.
        with suppress(NotImplementedError, RuntimeError, ValueError):
            if signal.getsignal(number) != signal.SIG_IGN:
                loop.add_signal_handler(number, end, number)


_signals: list[int] = []
"""Those that have ended the command."""


def _options_of(parameter: inspect.Parameter) -> list[inspect.Parameter]:
    """The command-line options of one parameter; keyword-only, as typer passes them."""
    if not is_dataclass(parameter.annotation):
        return [parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)]
    return [
        inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, annotation=field.type, default=field.default)
        for field in fields(parameter.annotation)
    ]


def _with_parameters(
    function: Callable[..., Any], *, like: Callable[..., Any], parameters: list[inspect.Parameter]
) -> Callable[..., Any]:
    """`function` under the name and with the text of `like`, and with `parameters` for those who ask."""
    functools.update_wrapper(function, like)
    del function.__wrapped__  # type: ignore[attr-defined]
    function.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    function.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return function
