"""The routes of the emulator's page: `/`, the page of a job with its images, and their files."""

import asyncio
import time
from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from docpreview_emulator.backend import Backend
from docpreview_emulator.errors import ControlError
from docpreview_emulator.model import Bucket
from docpreview_emulator.page import HEADERS, STATIC, Page
from docpreview_emulator.routes_control import health

HEALTH_SECONDS = 30.0
"""How long the converters and fonts that were found are shown before they are looked for again."""

_TYPES = {b"\xff\xd8\xff": "image/jpeg", b"\x89PNG": "image/png", b"%PDF": "application/pdf"}


def page_routes(backend: Backend) -> list[web.RouteDef]:
    """The routes of the page."""
    page = _PageRoutes(backend)
    return [
        web.get("/", page.overview),
        web.get("/jobs/{job_id}", page.job),
        web.get("/jobs/{job_id}/pages/{index:[0-9]{1,6}}", page.picture),
        *(web.get(f"/_emulator/{name}", page.static) for name in STATIC),
    ]


class _PageRoutes:
    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._page = Page(backend)
        self._health: tuple[float, Mapping[str, object]] | None = None
        self._looking = asyncio.Lock()

    async def overview(self, request: web.Request) -> web.StreamResponse:
        return _html(
            await self._page.overview(request.query, f"{request.scheme}://{request.host}", await self._found())
        )

    async def job(self, request: web.Request) -> web.StreamResponse:
        job_id = request.match_info["job_id"]
        text = await self._page.job(job_id, request.query)
        return _html(self._page.missing(f"job {job_id}"), 404) if text is None else _html(text)

    async def picture(self, request: web.Request) -> web.StreamResponse:
        """An output of a job, as what it is: a name or type that a client gave it does not matter."""
        path = self._output(request.match_info["job_id"], int(request.match_info["index"]))
        kind = None if path is None else await asyncio.to_thread(_type_of, path)
        if path is None or kind is None:
            return _html(self._page.missing("page image"), 404)
        return web.FileResponse(path, headers={**HEADERS, "Content-Type": kind})

    async def static(self, request: web.Request) -> web.StreamResponse:
        content, kind = STATIC[request.path.rpartition("/")[2]]
        return web.Response(body=content, content_type=kind, charset="utf-8", headers=HEADERS)

    def _output(self, job_id: str, index: int) -> Path | None:
        try:
            job = self._backend.jobs.get(job_id)
        except ControlError:
            return None
        if job.result is None or index >= len(job.result.pages):
            return None
        bucket = Bucket(job.spec.output.bucket, job.spec.output.region)
        stored = self._backend.objects.find(bucket, job.result.pages[index].target.removeprefix("/"))
        return None if stored is None else self._backend.objects.path(stored)

    async def _found(self) -> Mapping[str, object]:
        async with self._looking:
            if self._health is None or time.monotonic() > self._health[0] + HEALTH_SECONDS:
                self._health = time.monotonic(), await health(self._backend)
            return self._health[1]


def _type_of(path: Path) -> str | None:
    """The type of a file by its first bytes; None: it is neither an image nor a PDF, or it is gone."""
    try:
        with path.open("rb") as file:
            first = file.read(4)
    except OSError:
        return None
    return next((kind for mark, kind in _TYPES.items() if first.startswith(mark)), None)


def _html(text: str, status: int = 200) -> web.Response:
    # A path may have bytes that are no text; the page shows them as question marks.
    body = text.encode(errors="replace")
    return web.Response(status=status, body=body, content_type="text/html", charset="utf-8", headers=HEADERS)
