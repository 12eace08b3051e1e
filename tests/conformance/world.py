"""An emulator and a gateway in front of it, controlled by a scenario's `before` and `meanwhile`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Self

from docpreview_client import DocPreviewClient
from docpreview_gateway.wiring.gateway import Gateway
from tests.conformance.languages import ROOT
from tests.integration.conftest import BUCKET, REGION, settings

if TYPE_CHECKING:
    from types import TracebackType

    from docpreview_emulator import Emulator

_WATCH = {
    "grpc_type": "server_stream",
    "grpc_service": "docpreview.v1.PreviewJobService",
    "grpc_method": "WatchPreviewJob",
}
PATIENCE = 20.0
"""Time-out in seconds of every expected event."""


class World:
    """An emulator and a gateway, whose port stays the same over restarts."""

    def __init__(self, emulator: Emulator, changes: dict[str, Any]) -> None:
        self._emulator = emulator
        self._settings = settings(emulator, **changes)
        self._gateway: Gateway | None = None
        self.jobs: list[str] = []
        """Ids of the jobs that `before` made."""

    async def __aenter__(self) -> Self:
        await self.start_gateway()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop_gateway()

    @property
    def target(self) -> str:
        return self._settings.listen

    @property
    def unknown_methods(self) -> float | None:
        """Calls of methods that the gateway does not have."""
        assert self._gateway is not None
        return self._gateway.registry.get_sample_value("docpreview_grpc_unknown_methods_total")

    async def prepare(self, change: str, value: Any) -> None:
        """Carry out one entry of `before`."""
        match change:
            case "upload":
                text, document = value.get("text"), value.get("document", "")
                content = text.encode() if text is not None else (ROOT / "examples" / document).read_bytes()
                self._emulator.put_object(BUCKET, REGION, value["as"], content)
            case "hold_jobs":
                self._emulator.hold_jobs()
            case "fault":
                self._emulator.add_fault(**value)
            case "create_jobs":
                async with DocPreviewClient(self.target) as client:
                    for number in range(value):
                        job = await client.create(BUCKET, "a.pdf", output_object=f"out/{number}/p-${{Page}}.jpg")
                        self.jobs.append(job.job_id)
            case "stop_gateway":
                await self.stop_gateway()
            case _:
                raise AssertionError(f"the table asks for {change!r}, which is not in its README")

    async def disturb(self, change: str) -> None:
        """Carry out one entry of `meanwhile`."""
        match change:
            case "await_watch":
                await asyncio.wait_for(self._watched(), PATIENCE)
            case "stop_gateway":
                await self.stop_gateway()
            case "start_gateway":
                await self.start_gateway()
            case "release_jobs":
                self._emulator.release_jobs()
            case _:
                raise AssertionError(f"the table asks for {change!r}, which is not in its README")

    def counted(self, what: str) -> int:
        """A number of requests that reached the cloud."""
        if what == "accepted_jobs":
            return self._emulator.accepted_jobs
        assert what == "lists", f"the table asks for {what!r}, which is not in its README"
        return sum(request.operation == "list" for request in self._emulator.requests)

    async def start_gateway(self) -> None:
        gateway = await Gateway(self._settings).__aenter__()
        self._gateway = gateway
        self._settings = self._settings.model_copy(update={"listen": f"127.0.0.1:{gateway.port}"})

    async def stop_gateway(self) -> None:
        gateway, self._gateway = self._gateway, None
        if gateway is not None:
            await gateway.__aexit__(None, None, None)

    async def _watched(self) -> None:
        """Wait until a watch of the running gateway has received a message."""
        assert self._gateway is not None
        while not self._gateway.registry.get_sample_value("grpc_server_msg_sent_total", _WATCH):  # noqa: ASYNC110 - what prometheus counts rings no bell
            await asyncio.sleep(0.02)
