"""A server as a process of its own, whose log goes into a file."""

import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from docpreview_emulator.private_files import append_private

_KILLED_BY_PARENT = 1
"""`PR_SET_PDEATHSIG` of prctl(2)."""
_LAST_LINES_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Command:
    """What a server is started with, and how its log is read."""

    name: str
    words: Sequence[str]
    log: Path
    """The file to which the log is appended; only its owner may read it."""
    mark: str
    """A text in the line that it writes when it serves."""
    variables: Mapping[str, str] = field(default_factory=dict)
    note: Callable[[str], str | None] = lambda _: None
    """What a user should read of a line of the log; None: nothing."""


class ServerProcess:
    """A running server. In `with` it is killed at the end, unless it has stopped before.

    Variables of the environment that begin with `DOCPREVIEW_` do not reach it, signals of the terminal neither.
    """

    def __init__(
        self,
        command: Command,
        *,
        changed: Callable[["ServerProcess"], object] = lambda _: None,
        stops_with_parent: bool = False,
    ) -> None:
        """Start it.

        `changed` is called in a thread when it serves, has a note or has ended. With `stops_with_parent` it gets
        SIGTERM once the thread that starts it is gone, by SIGKILL too, where the platform can do that: Linux.
        """
        self.name = command.name
        self.serving: Future[str] = Future()
        """The line that it wrote when it began to serve. RuntimeError with its log: it ended before."""
        self.notes: deque[str] = deque()
        """What a user should read, oldest first."""
        self.code: int | None = None
        """Its exit code once it has ended; that of a signal is negative."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
        self._process = subprocess.Popen(  # noqa: S603 - our own command
            command.words,
            env={**inherited, **command.variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            preexec_fn=_stop_with(os.getpid()) if stops_with_parent else None,  # noqa: PLW1509 - it takes no lock
        )
        self._changed = changed
        self._begin = command.log.stat().st_size if command.log.exists() else 0
        self._reader = threading.Thread(target=self._read, args=(command,), name=f"{command.name}-log", daemon=True)
        self._waiter = threading.Thread(target=self._wait, args=(command,), name=f"{command.name}-end")
        self._reader.start()
        self._waiter.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def terminate(self) -> None:
        """Ask it to stop."""
        self._process.terminate()

    def kill(self) -> None:
        """End it at once, and wait for that."""
        self._process.kill()
        self._waiter.join()

    def _read(self, command: Command) -> None:
        """Copy the log to its file, and look at its lines."""
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        with append_private(command.log) as copy, self._process.stdout as lines:
            for line in lines:
                with suppress(OSError):  # a full disk loses lines
                    copy.write(line)
                self._look(line.decode(errors="replace").rstrip(), command)

    def _look(self, line: str, command: Command) -> None:
        if not self.serving.done() and command.mark in line:
            self.serving.set_result(line)
        elif (note := command.note(line)) is not None:
            self.notes.append(note)
        else:
            return
        self._changed(self)

    def _wait(self, command: Command) -> None:
        """Wait for the end of the process, end what it has left in its session, and tell of it."""
        code = self._process.wait()
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._reader.join(_LAST_LINES_SECONDS)  # a process of another session may have the pipe
        if not self.serving.done():
            text = command.log.read_bytes()[self._begin :].decode(errors="replace")
            self.serving.set_exception(RuntimeError(f"the {self.name} did not start:\n{text}"))
        self.code = code
        self._changed(self)


def _stop_with(parent: int) -> Callable[[], None] | None:
    """What a new process does first to get SIGTERM at the end of its parent."""
    if sys.platform != "linux":
        return None
    prctl = ctypes.CDLL(None).prctl

    def bind() -> None:
        prctl(_KILLED_BY_PARENT, signal.SIGTERM, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)

    return bind
