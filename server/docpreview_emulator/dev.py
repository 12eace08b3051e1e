"""The command `docpreview-gateway dev`: the emulator and a gateway in front of it, to try things out on one machine.

Both are processes with the commands that start them alone. `docpreview-gateway` hands its command line over to this
module, so that the gateway's package does without the emulator's.
"""

import json
import os
import re
import shlex
import shutil
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Annotated, Self

import typer
import yaml

from docpreview_emulator import gateway_process
from docpreview_emulator.model import DEFAULT_CREDENTIAL
from docpreview_emulator.paths import given_path
from docpreview_emulator.private_files import create_private
from docpreview_emulator.server_process import Command, ServerProcess

EXAMPLE = "example.pdf"
GRPC_PORT, ADMIN_PORT, EMULATOR_PORT = 50051, 9464, 8089
STOP_SECONDS = 10.0
"""How long a server may take to stop before it is killed."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_OTHERS = 0o077
_SHOWN = {"warning", "error", "critical"}
_LISTENS = "listens on"
_UNTOLD = {"timestamp", "logger"}
_HEAD = """\
# The example configuration of `docpreview-gateway dev`, which keeps this file once it is there. Whatever stands here,
# it sets `listen`, `admin_listen`, `state_dir`, `drain` and the addresses of the emulator at each start.
"""

Starter = Callable[[Sequence[int]], ServerProcess]
"""Starts a server on these ports; 0 is a free one."""


class _Stop(Exception):  # noqa: N818 - nothing is wrong
    """A signal has come."""


class EndedError(Exception):
    """A server has ended by itself."""

    def __init__(self, server: ServerProcess) -> None:
        super().__init__(f"the {server.name} {'has ended' if _serves(server) else 'did not start'}: {_why(server)}")
        self.server = server


def dev(
    *,
    data_dir: Annotated[
        Path | None,
        typer.Option(
            parser=given_path,
            metavar="PATH",
            help="Folder for configuration, documents, jobs and logs; default: a new one, deleted at the end.",
        ),
    ] = None,
    port: Annotated[
        int, typer.Option(help="Port for gRPC; a free one if it is taken, or for 0.", min=0, max=65535)
    ] = GRPC_PORT,
    admin_port: Annotated[
        int, typer.Option(help="Port for the gateway's admin pages; likewise.", min=0, max=65535)
    ] = ADMIN_PORT,
    emulator_port: Annotated[
        int, typer.Option(help="Port for the emulator; likewise.", min=0, max=65535)
    ] = EMULATOR_PORT,
) -> None:
    """Start the emulator and a gateway in front of it on loopback, until SIGINT (Ctrl-C) or SIGTERM.

    The exit code is 1 when one of them does not start, or ends by itself: the other one is stopped then.
    """
    os.umask(_OTHERS)  # of both servers too: the folder may be one that others can read
    try:
        with _folder(data_dir) as folder, Servers(folder) as servers:
            servers.run((emulator_port,), (port, admin_port))
    except _Stop:
        return
    except OSError as error:
        said = error if error.filename is None else f"{error.filename}: {error.strerror}"
        typer.echo(f"error: {said}", err=True)
        raise typer.Exit(1) from None
    except EndedError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from None


@contextmanager
def _folder(data_dir: Path | None) -> Iterator[Path]:
    """The folder of everything, which only its owner may read when it is new; so are its files in an older one."""
    with ExitStack() as stack:
        if data_dir is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="docpreview-dev-")))
            typer.echo(f"everything is in {folder}, and deleted at the end (--data-dir keeps it)", err=True)
        else:
            folder = data_dir.resolve()
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            typer.echo(f"everything is kept in {folder}", err=True)
        with create_private(folder / EXAMPLE) as example:
            example.write(Path(__file__).with_name(EXAMPLE).read_bytes())
        configuration = folder / gateway_process.CONFIGURATION
        if not configuration.exists():
            with create_private(configuration) as written:
                written.write((_HEAD + yaml.safe_dump(example_settings(), sort_keys=False)).encode())
        yield folder


def example_settings() -> dict[str, object]:
    """The settings of examples/gateway.yaml."""
    key = DEFAULT_CREDENTIAL
    url = f"http://127.0.0.1:{EMULATOR_PORT}"
    return {"reflection": True, **gateway_process.settings(url, key.secret_id, key.secret_key)}


class Servers:
    """Both servers. At the end of `with` they are stopped, the gateway first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._events: SimpleQueue[int | ServerProcess] = SimpleQueue()
        self._running: list[ServerProcess] = []

    def __enter__(self) -> Self:
        for number in _SIGNALS:
            if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:  # nohup wants it to go on
                signal.signal(number, lambda number, _: self._events.put(number))
        return self

    def __exit__(self, *_: object) -> None:
        for server in reversed(self._running):
            server.terminate()
            self._await_end(server)
            server.kill()

    def run(self, emulator_ports: Sequence[int], gateway_ports: Sequence[int]) -> None:
        """Start both, print where they are, and wait. _Stop or EndedError is how it ends."""
        line = self.started(self._start_emulator, emulator_ports)
        url = line.partition(_LISTENS)[2].split()[0]
        line = self.started(lambda ports: self._start_gateway(url, ports), gateway_ports)
        grpc_port, admin_port = gateway_process.ports(line)
        target = f"127.0.0.1:{grpc_port}"
        bucket = gateway_process.first_bucket(self._folder)
        words = (_client(), "preview", str(self._folder / EXAMPLE), "--bucket", bucket)
        typer.echo(f"gRPC      {target}")
        typer.echo(f"emulator  {url}/")
        typer.echo(f"admin     http://127.0.0.1:{admin_port}/")
        typer.echo(f"try       {shlex.join((*words, '--target', target))}")
        while True:
            self._print_notes()
            self._next()

    def started(self, start: Starter, wanted: Sequence[int]) -> str:
        """Start a server, on other ports than those that are taken; the line that it writes when it serves."""
        while True:
            ports = [port if _is_free(port) else 0 for port in wanted]
            server = start(ports)
            self._running.append(server)
            try:
                while not _serves(server):
                    self._next()
            except EndedError as error:
                if error.server is not server or all(map(_is_free, ports)):
                    raise
                self._running.remove(server)  # another program was faster
            else:
                return server.serving.result()

    def _start_emulator(self, ports: Sequence[int]) -> ServerProcess:
        (port,) = ports
        words = (sys.executable, "-P", "-m", "docpreview_emulator", "serve")
        options = ("--port", str(port), "--data-dir", str(self._folder / "cloud"))
        log = self._folder / "emulator.log"
        return self.process(Command("emulator", (*words, *options), log, mark=_LISTENS, note=emulator_note))

    def _start_gateway(self, url: str, ports: Sequence[int]) -> ServerProcess:
        port, admin_port = ports
        variables = {
            "DOCPREVIEW_LISTEN": f"127.0.0.1:{port}",
            "DOCPREVIEW_ADMIN_LISTEN": f"127.0.0.1:{admin_port}",
            "DOCPREVIEW_STATE_DIR": str(self._folder),
            "DOCPREVIEW_UPSTREAM__ENDPOINT": url,
            "DOCPREVIEW_UPSTREAM__OBJECT_URL_BASE": gateway_process.object_url_base(url),
            "DOCPREVIEW_DRAIN__DELAY_SECONDS": "0",
            "DOCPREVIEW_DRAIN__GRACE_SECONDS": "2",
        }
        command = gateway_process.gateway_command(self._folder, variables=variables, note=gateway_note)
        return self.process(command)

    def process(self, command: Command) -> ServerProcess:
        """Start one of them."""
        return ServerProcess(command, changed=self._events.put, stops_with_parent=True)

    def _next(self) -> None:
        """Wait for what happens next. _Stop after a signal, EndedError once a server has ended."""
        event = self._events.get()
        if isinstance(event, int):
            raise _Stop
        if event.code is not None and event in self._running:
            raise EndedError(event)

    def _await_end(self, server: ServerProcess) -> None:
        """Wait until a server that was asked to stop has ended, but not for ever and not after another signal."""
        end = time.monotonic() + STOP_SECONDS
        while server.code is None:
            try:
                event = self._events.get(timeout=max(0.0, end - time.monotonic()))
            except Empty:
                return
            if isinstance(event, int):
                return

    def _print_notes(self) -> None:
        for server in self._running:
            while server.notes:
                typer.echo(f"{server.name}: {server.notes.popleft()}", err=True)


def _serves(server: ServerProcess) -> bool:
    return server.serving.done() and server.serving.exception() is None


def _why(server: ServerProcess) -> str:
    """Why a server has ended: the last that it said, or how its process ended."""
    if server.notes:
        return "\n".join(server.notes)
    code = server.code or 0
    return f"killed by {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def emulator_note(line: str) -> str | None:
    """What is no information of a request."""
    if re.match(r"\S+ \S+ (DEBUG|INFO) ", line):
        return None
    return re.sub(r"^(\S+ \S+ [A-Z]+ |docpreview-emulator: )", "", line)


def gateway_note(line: str) -> str | None:
    """An entry of the log from warnings on, in words; a line that is no entry, as it is."""
    try:
        entry = dict(json.loads(line))
    except (ValueError, TypeError):
        return line.removeprefix("error: ")
    if entry.pop("level", "") not in _SHOWN:
        return None
    event = entry.pop("event", "")
    texts = {name: str(value).strip().rpartition("\n")[2] for name, value in entry.items() if name not in _UNTOLD}
    return f"{event} ({', '.join(f'{name}: {text}' for name, text in texts.items())})" if texts else str(event)


def _client() -> str:
    """The command `docpreview`, as it can be typed here."""
    beside = Path(sys.executable).with_name("docpreview")
    found = shutil.which("docpreview")
    if not beside.exists():
        if found is None:
            typer.echo(
                'warning: the command docpreview is not installed: pip install "docpreview-client[cli]", '
                'or from a checkout pip install ./protos "./clients/python[cli]"',
                err=True,
            )
        return "docpreview"
    return "docpreview" if found is not None and beside.samefile(found) else str(beside)


if __name__ == "__main__":
    app = typer.Typer(pretty_exceptions_enable=False, add_completion=False)
    app.command()(dev)
    app(prog_name="docpreview-gateway dev")
