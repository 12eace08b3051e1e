"""The emulator as a library: start it, control it, inspect the requests that it got."""

import asyncio
import tempfile
from collections.abc import Callable, Iterable
from contextlib import AsyncExitStack
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from aiohttp import web

from docpreview_emulator.backend import Backend
from docpreview_emulator.callbacks import CallbackRecord
from docpreview_emulator.clock import Clock
from docpreview_emulator.errors import ControlError, MissingExtraError
from docpreview_emulator.faults import Fault
from docpreview_emulator.guard import Guard
from docpreview_emulator.hosts import LOOPBACK_NAMES, check_bucket
from docpreview_emulator.listener import Listener
from docpreview_emulator.model import DEFAULT_CREDENTIAL, Bucket, Credential, Job, Multipart, Part, State, StoredObject
from docpreview_emulator.queues import default_queue_id
from docpreview_emulator.recording import RequestRecord
from docpreview_emulator.server import application, http_log
from docpreview_emulator.settings import Settings
from docpreview_emulator.shortcomings import renderers, shortcomings

if TYPE_CHECKING:
    import ssl

_ANY = {"0.0.0.0", "::"}  # noqa: S104 - addresses that are no names
_STOP_TIMEOUT = 2.0
_RENDERERS = ("PIL", "pypdfium2")


class Emulator:
    """The cloud's document-preview service on a local socket, running inside `async with`.

    Its methods and properties may be used from any thread while it runs.

    Args:
        data_dir: where jobs and objects are stored; None uses a temporary directory, removed with the emulator.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one, see `url`.
        credentials: the key pairs that it accepts; by default `example-secret-id` with its made-up key.
        settings: delays, limits and tolerances.
    """

    def __init__(
        self,
        data_dir: Path | str | None = None,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        credentials: Iterable[Credential] = (DEFAULT_CREDENTIAL,),
        settings: Settings | None = None,
    ) -> None:
        self.clock = Clock()
        """The emulator's clock; `offset_seconds` skews it in either direction."""

        self.credentials = {credential.secret_id: credential for credential in credentials}
        """The accepted key pairs by id; may be changed at any time."""

        self._settings = settings or Settings()
        self._data_dir = None if data_dir is None else Path(data_dir).resolve()
        self._address = (host, port)
        self._ca_file: Path | None = None
        self._stack = AsyncExitStack()
        self._running: tuple[Backend, asyncio.AbstractEventLoop] | None = None

    async def __aenter__(self) -> Self:
        """Open the data directory, resume unfinished jobs, and listen.

        Raises:
            MissingExtraError: the libraries that render are not installed.
            StorageError: the data directory cannot be used.
            OSError: the address cannot be listened on.
        """
        missing = [library for library in _RENDERERS if find_spec(library) is None]
        if missing:
            raise MissingExtraError(
                f'{" and ".join(missing)} cannot be imported: pip install "docpreview-gateway[emulator]", '
                'or from a checkout pip install ./protos ".[emulator]"'
            )
        async with AsyncExitStack() as stack:
            directory = self._data_dir or stack.enter_context(
                tempfile.TemporaryDirectory(prefix="docpreview-emulator-")
            )
            backend = Backend(Path(directory), self.clock, self.credentials, self._settings)
            stack.push_async_callback(backend.close)
            backend.start()
            self._address = await self._listen(backend, Path(directory), stack)
            self._running = (backend, asyncio.get_running_loop())
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._running = None
        await self._stack.aclose()

    async def _listen(self, backend: Backend, directory: Path, stack: AsyncExitStack) -> tuple[str, int]:
        host, settings = self._address[0], self._settings
        names = settings.control_hosts if host in _ANY else (host, *settings.control_hosts)
        tls = self._tls_context(directory, names) if settings.tls else None
        direct, tunnelled = (
            web.AppRunner(
                application(backend, guard),
                access_log=None,
                logger=http_log(),
                shutdown_timeout=_STOP_TIMEOUT,
                auto_decompress=False,
            )
            for guard in (Guard(names), None)
        )
        listener = Listener(direct, tunnelled, tls)
        stack.push_async_callback(listener.close)
        return await listener.start(*self._address)

    def _tls_context(self, directory: Path, names: Iterable[str]) -> "ssl.SSLContext":
        from docpreview_emulator.authority import Authority  # noqa: PLC0415 - takes time to import, few need it

        authority = Authority(directory / "tls", (*LOOPBACK_NAMES, *names))
        self._ca_file = authority.certificate_file
        return authority.context()

    @property
    def ca_file(self) -> Path:
        """The certificate of the authority that clients have to trust, as PEM.

        Raises:
            ControlError: the emulator has no TLS, or is not running.
        """
        if self._ca_file is None:
            raise ControlError("there is no authority: start the emulator with tls=True")
        return self._ca_file

    @property
    def port(self) -> int:
        """The listening port."""
        return self._address[1]

    @property
    def url(self) -> str:
        """Where to connect, e.g. `http://127.0.0.1:8089`; requests name the cloud's host in their `Host` header."""
        host = self._address[0]
        return f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"

    async def renderers(self) -> str:
        """What was found on this machine to render documents with."""
        return renderers(self._backend.office, await self._backend.fonts())

    async def shortcomings(self) -> list[str]:
        """What this machine lacks for documents of some kinds, and the command that installs it."""
        return shortcomings(self._backend.office, await self._backend.fonts())

    # Requests and jobs

    @property
    def requests(self) -> list[RequestRecord]:
        """The newest requests to the cloud's hosts, oldest first."""
        return self._backend.recorder.all()

    def clear_requests(self) -> None:
        """Discard the recorded requests."""
        self._backend.recorder.clear()

    @property
    def accepted_jobs(self) -> int:
        """Number of jobs ever accepted in this data directory; the cloud would bill each of them."""
        return self._backend.jobs.accepted()

    @property
    def jobs(self) -> list[Job]:
        """All jobs of all buckets, oldest first."""
        return self._backend.jobs.all()

    def job(self, job_id: str) -> Job:
        """One job.

        Raises:
            ControlError: there is no such job.
        """
        return self._backend.jobs.get(job_id)

    async def wait_for_job(self, job_id: str, timeout: float = 60.0) -> Job:  # noqa: ASYNC109 - reads as the sentence
        """The job once its state is terminal; may be awaited in any event loop of any thread.

        Raises:
            ControlError: there is no such job.
            TimeoutError: it takes longer than `timeout` seconds.
        """
        loop, changed = asyncio.get_running_loop(), asyncio.Event()

        def notice(_job_id: str) -> None:
            loop.call_soon_threadsafe(changed.set)

        self._backend.jobs.on_change.append(notice)
        try:
            async with asyncio.timeout(timeout):
                while not (job := self.job(job_id)).state.is_final:
                    await changed.wait()
                    changed.clear()
                return job
        finally:
            self._backend.jobs.on_change.remove(notice)

    @property
    def callbacks(self) -> list[CallbackRecord]:
        """The newest callbacks that were sent, in the order of their answers."""
        return list(self._backend.callbacks.records)

    async def isolation(self) -> str:
        """The isolation of documents that is in force: namespaces, landlock or limits (`sandbox`).

        It is to be awaited in the emulator's own event loop.
        """
        return await self._backend.workers.isolation()

    # Controls

    @property
    def faults(self) -> list[Fault]:
        """The faults that still apply to coming requests."""
        return self._backend.faults.active()

    def add_fault(self, kind: str, operation: str = "*", **details: Any) -> None:  # noqa: ANN401 - the fields of Fault
        """Inject a fault into the next requests; `details` are the fields of `Fault`.

        Raises:
            ControlError: a key or value is not one that is accepted.
        """
        self._backend.faults.add(Fault.of({"kind": kind, "operation": operation, **details}))

    def clear_faults(self) -> None:
        """Remove all faults."""
        self._backend.faults.clear()

    def pause_queue(self, queue_id: str) -> None:
        """Stop scheduling a queue's jobs: waiting jobs show `Pause`, running jobs continue.

        Raises:
            ControlError: there is no such queue.
        """
        self._backend.set_queue_active(queue_id, active=False)

    def resume_queue(self, queue_id: str) -> None:
        """Schedule a queue's jobs again.

        Raises:
            ControlError: there is no such queue.
        """
        self._backend.set_queue_active(queue_id, active=True)
        self._call(self._backend.scheduler.start_waiting, queue_id)

    def queue_id(self, bucket: str, region: str) -> str:
        """The id of a bucket's default queue, which is created if it does not exist."""
        self._backend.queues.ensure(Bucket(bucket, region))
        return default_queue_id(Bucket(bucket, region))

    def bind_bucket(self, bucket: str, region: str) -> None:
        """Switch the document service of a bucket on, as it is by default."""
        self._backend.queues.bind(Bucket(bucket, region), bound=True)

    def unbind_bucket(self, bucket: str, region: str) -> None:
        """Switch the document service of a bucket off: its calls are refused with DocBucketUnBinded."""
        self._backend.queues.bind(Bucket(bucket, region), bound=False)

    def hold_jobs(self) -> None:
        """Keep jobs that reach `Running` there until `release_jobs`."""
        self._call(self._backend.scheduler.hold)

    def release_jobs(self) -> None:
        """Continue held jobs."""
        self._call(self._backend.scheduler.release)

    def set_job_state(self, job_id: str, state: str, *, code: str = "Success", message: str = "") -> None:
        """Set a job's state; the emulator stops working on it.

        Raises:
            ControlError: there is no such job or state.
        """
        if state not in set(State):
            raise ControlError(f"state {state!r} is unknown; accepted: {', '.join(State)}")
        self._backend.jobs.set_state(job_id, State(state), code, message)
        self._call(self._backend.scheduler.cancel, job_id)

    def put_object(self, bucket: str, region: str, key: str, data: bytes) -> StoredObject:
        """Store an object directly, without an HTTP request; its bucket is created if it does not exist.

        Raises:
            ControlError: there can be no bucket of this name and region.
        """
        check_bucket(Bucket(bucket, region))
        self._backend.queues.ensure(Bucket(bucket, region))
        return self._backend.objects.put(Bucket(bucket, region), key, data)

    def delete_object(self, bucket: str, region: str, key: str) -> None:
        """Delete an object, if it is there."""
        self._backend.objects.delete(Bucket(bucket, region), key)

    def get_object(self, bucket: str, region: str, key: str) -> bytes:
        """The bytes of an object.

        Raises:
            ControlError: there is no such object.
        """
        stored = self._backend.objects.find(Bucket(bucket, region), key)
        if stored is None:
            raise ControlError(f"there is no object {key} in {bucket}")
        return self._backend.objects.read(stored)

    @property
    def on_put(self) -> list[Callable[[StoredObject], None]]:
        """What is called with each object as it is stored, in the server's thread and in the order of the store."""
        return self._backend.objects.on_put

    @property
    def multiparts(self) -> list[tuple[Multipart, list[Part]]]:
        """The multipart uploads that were begun and neither completed nor aborted, oldest first, with their parts."""
        return self._backend.multiparts.all()

    @property
    def _backend(self) -> Backend:
        if self._running is None:
            raise ControlError("the emulator is not running: use it inside `async with Emulator(...)`")
        return self._running[0]

    def _call(self, function: Any, *arguments: Any) -> None:  # noqa: ANN401 - as loop.call_soon
        """Call into the server's loop, from whichever thread this is."""
        if self._running is None:
            raise ControlError("the emulator is not running")
        loop = self._running[1]
        loop.call_soon_threadsafe(function, *arguments)
