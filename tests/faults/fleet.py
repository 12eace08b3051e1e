"""Rolling restarts: replicas of the gateway, a balancer in front of them, and a steady load."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self

import grpc

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, GetPreviewJobRequest
from docpreview.v1.preview_job_service_pb2_grpc import PreviewJobServiceStub
from docpreview_client import DocPreviewClient
from tests.faults.gateway_process import BUCKET, GatewayProcess

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
    from types import TracebackType

DOCUMENT = "a.pdf"
CALLERS = 24
CALLS_PER_SECOND = 200.0
WATCHERS = 4


class Fleet:
    """Replicas of the gateway: `async with Fleet(folder, upstream_port, changes) as fleet`."""

    def __init__(self, folder: Path, upstream_port: int, changes: Mapping[str, object], *, count: int = 2) -> None:
        self.replicas = []
        for number in range(count):
            home = folder / f"replica-{number}"
            home.mkdir()
            self.replicas.append(GatewayProcess(home, upstream_port, changes=changes))
        self._stack = AsyncExitStack()
        self.rolls = 0

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await asyncio.gather(*(stack.enter_async_context(each) for each in self.replicas))
            self._stack = stack.pop_all()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def roll(self, connections: int) -> None:
        """Rolling restart: drain and restart each replica once the one before is ready and has `connections` again."""
        for replica in self.replicas:
            await replica.stop()
            await replica.start()
            async with asyncio.timeout(60):
                while not await ready(replica.admin_port) or connected(replica.port) < connections:  # noqa: ASYNC110
                    await asyncio.sleep(0.1)
            # Until the balancer has polled readiness, and clients have received the update of the health service.
            await asyncio.sleep(1)
        self.rolls += 1


async def ready(admin_port: int) -> bool:
    """Whether `/readyz` answers 200, as the chart's probe asks it."""
    with suppress(OSError):
        reader, writer = await asyncio.open_connection("127.0.0.1", admin_port)
        try:
            writer.write(b"GET /readyz?exclude=cloud&exclude=records HTTP/1.0\r\n\r\n")
            return b" 200 " in await reader.readline()
        finally:
            writer.close()
    return False


def connected(port: int) -> int:
    """Number of established TCP connections to a loopback port."""
    # gRPC's sockets are of both families, whatever address they listen on.
    lines = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()]
    return sum(line[1].endswith(f":{port:04X}") and line[3] == "01" for line in lines)


class Service:
    """TCP balancer like kube-proxy: one address, new connections go to the ready replicas in round robin.

    A connection stays with its replica until one side closes it. Readiness is polled every 0.1 s.
    """

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._ready: list[GatewayProcess] = []
        self._turn = itertools.count()
        self._tasks: set[asyncio.Task[object]] = set()

    async def __aenter__(self) -> Self:
        await self._poll_readiness()
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.address = f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._track(asyncio.create_task(self._keep_polling()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _track(self, task: asyncio.Task[object]) -> None:
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _keep_polling(self) -> object:
        while True:
            await asyncio.sleep(0.1)
            await self._poll_readiness()

    async def _poll_readiness(self) -> None:
        self._ready = [each for each in self._fleet.replicas if await ready(each.admin_port)]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._track(task)
        try:
            with suppress(OSError, asyncio.CancelledError):
                await self._connect(reader, writer)
        finally:
            writer.close()

    async def _connect(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if not self._ready:
            return
        port = self._ready[next(self._turn) % len(self._ready)].port
        there, back = await asyncio.open_connection("127.0.0.1", port)
        try:
            pumps = [asyncio.create_task(_pump(reader, back)), asyncio.create_task(_pump(there, writer))]
            try:
                await asyncio.wait(pumps)
            finally:
                for pump in pumps:
                    pump.cancel()
                await asyncio.gather(*pumps, return_exceptions=True)
        finally:
            back.close()


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    """Copy until the source ends and pass its EOF on; the other direction stays open."""
    while data := await source.read(65536):
        sink.write(data)
        await sink.drain()
    sink.write_eof()


class Load:
    """Open-loop load: calls at a steady rate, independent of earlier replies; `results` counts them by status."""

    def __init__(self, calls: list[Callable[[], Awaitable[object]]]) -> None:
        self._calls = calls
        self._running: set[asyncio.Task[None]] = set()
        self.results: Counter[str] = Counter()
        self.failures: list[str] = []

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Generate load inside the block; at its end every call has ended."""
        steady = asyncio.create_task(self._steady())
        try:
            yield
        finally:
            steady.cancel()
            await asyncio.gather(steady, return_exceptions=True)
            await asyncio.gather(*self._running)

    async def _steady(self) -> None:
        clock = asyncio.get_running_loop().time
        begun = clock()
        for number in itertools.count():
            await asyncio.sleep(begun + number / CALLS_PER_SECOND - clock())
            task = asyncio.create_task(self._one(self._calls[number % len(self._calls)]))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _one(self, call: Callable[[], Awaitable[object]]) -> None:
        try:
            await call()
        except Exception as error:  # noqa: BLE001 - a failure of any kind counts
            self.results[type(error).__name__] += 1
            self.failures.append(f"{error!r}"[:300])
        else:
            self.results["OK"] += 1


@asynccontextmanager
async def plain_callers(address: str, job_id: str) -> AsyncIterator[Load]:
    """Plain gRPC callers without a service config, one connection each; some create with `request_id`."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with AsyncExitStack() as stack:
        calls: list[Callable[[], Awaitable[object]]] = []
        for number in range(CALLERS):
            channel = await stack.enter_async_context(grpc.aio.insecure_channel(address, options=options))
            calls.append(_Plain(channel, job_id, creates=number % 20 == 0).call)
        yield Load(calls)


class _Plain:
    def __init__(self, channel: grpc.aio.Channel, job_id: str, *, creates: bool) -> None:
        self._stub = PreviewJobServiceStub(channel)
        self._job_id = job_id
        self._creates = creates

    async def call(self) -> None:
        if self._creates:
            request_id = str(uuid.uuid4())
            output = ObjectLocation(object=f"out/{request_id}/p-${{Page}}.jpg")
            await self._stub.CreatePreviewJob(
                CreatePreviewJobRequest(bucket=BUCKET, input_object=DOCUMENT, output=output, request_id=request_id),
                timeout=20,
            )
        else:
            await self._stub.GetPreviewJob(GetPreviewJobRequest(bucket=BUCKET, job_id=self._job_id), timeout=20)


@asynccontextmanager
async def shipped_callers(target: str, job_id: str) -> AsyncIterator[Load]:
    """Shipped clients, which balance over replicas and retry reads. In one process gRPC shares their connections."""
    async with AsyncExitStack() as stack:
        calls: list[Callable[[], Awaitable[object]]] = []
        for _ in range(CALLERS):
            client = await stack.enter_async_context(DocPreviewClient(target))
            calls.append(partial(client.get, BUCKET, job_id, timeout=timedelta(seconds=20)))
        yield Load(calls)


async def last_state(client: DocPreviewClient, job_id: str) -> PreviewJob.State.ValueType:
    """State of the last message of a watch that the gateway ended."""
    seen = PreviewJob.STATE_UNSPECIFIED
    async for job in client.watch(BUCKET, job_id):
        seen = job.state
    return seen
