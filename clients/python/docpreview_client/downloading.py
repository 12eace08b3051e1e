"""Download of a job's pages to a directory: in parallel, resumed where it broke off, with fresh addresses."""

import asyncio
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from pathlib import Path
from typing import Final, TypeAlias

import grpc

from docpreview.v1.preview_job_pb2 import Page, PreviewJob
from docpreview_client import errors, page_files
from docpreview_client.call import CallFields
from docpreview_client.page_directory import PageDirectory, prepared
from docpreview_client.retries import Pauses
from docpreview_client.spans import Span
from docpreview_client.storage import NoObject, Storage, StorageLost

Progress: TypeAlias = Callable[[int, int, int], None]
Files: TypeAlias = list[Path]

_ATTEMPTS: Final = 4
_REFUSED: Final = frozenset({HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN})
_SECONDS_BETWEEN_SAVES: Final = 1.0


class DownloadFields(CallFields, total=False):
    """Optional arguments of a download, beside those of every call.

    Keys:
        page_url_ttl: How long the addresses are valid that are asked for. Default: 15 minutes.
        parallel: Pages that are fetched at a time. Default: 8.
        progress: Called with the numbers of complete pages, of pages in all, and of bytes of the complete ones, at the
            beginning and after each page.
    """

    page_url_ttl: Span
    parallel: int
    progress: Progress | None


class Addresses:
    """The addresses of a job's pages, which are asked for anew when they have expired."""

    def __init__(self, job: PreviewJob, ask: Callable[[], Awaitable[PreviewJob]]) -> None:
        self.job = job
        self.age = 0
        self._ask = ask
        self._asking = asyncio.Lock()

    async def complete(self) -> None:
        """Asks if the job came without pages, or pages without addresses."""
        pages = self.job.result.pages
        if len(pages) < self.job.result.succeeded_page_count or any(not page.url for page in pages):
            await self.renew(self.age)

    async def renew(self, age: int) -> None:
        """Asks, unless that was done since the addresses of this age were taken."""
        async with self._asking:
            if self.age == age:
                self.job = await self._ask()
                self.age += 1

    def page(self, number: int) -> Page:
        """The page with its present address.

        Raises:
            FailedPrecondition: It has none.
        """
        pages = self.job.result.pages
        page = pages[number] if number < len(pages) else Page()
        if not page.url.startswith(("https://", "http://")):
            raise errors.FailedPrecondition(
                f"{page.object or 'a page'} has no address: the gateway's policy does not give it to this caller, its "
                "bucket is not configured, or the job cannot have made it.",
                code=grpc.StatusCode.FAILED_PRECONDITION,
            )
        return page


class Download:
    """The download of one job's pages."""

    def __init__(self, addresses: Addresses, directory: PageDirectory, *, parallel: int, progress: Progress) -> None:
        self._addresses = addresses
        self._directory = directory
        self._parallel = parallel
        self._progress = progress
        self._names = page_files.names(addresses.job)
        self._has_failed = False
        self._done = 0
        self._bytes = 0
        self._save_at = 0.0

    async def files(self) -> Files:
        """Fetches the pages that are not there yet, and returns all in order."""
        kept = {name for name in self._names if self._directory.has(name)}
        missing = [number for number, name in enumerate(self._names) if name not in kept]
        self._done, self._bytes = len(kept), sum(self._directory.size(name) for name in kept)
        self._progress(self._done, len(self._names), self._bytes)
        permits = asyncio.Semaphore(self._parallel)
        try:
            async with Storage(workers=self._parallel) as storage, asyncio.TaskGroup() as group:
                for number in missing:
                    group.create_task(self._bounded(storage, number, permits))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
        finally:
            self._directory.save()
        return [self._directory.path / name for name in self._names]

    async def _bounded(self, storage: Storage, number: int, permits: asyncio.Semaphore) -> None:
        async with permits:
            if self._has_failed:  # the next in turn is woken before it is cancelled
                return
            try:
                await self._fetch(storage, number)
            except errors.DocPreviewError:
                self._has_failed = True
                raise
        name = self._names[number]
        self._directory.complete(name)
        self._done, self._bytes = self._done + 1, self._bytes + self._directory.size(name)
        now = asyncio.get_running_loop().time()
        if now >= self._save_at:  # not for each page: of thousands the manifest is long
            self._directory.save()
            self._save_at = now + _SECONDS_BETWEEN_SAVES
        self._progress(self._done, len(self._names), self._bytes)

    async def _fetch(self, storage: Storage, number: int) -> None:
        pauses = Pauses()
        for left in reversed(range(_ATTEMPTS)):
            age, page = self._addresses.age, self._addresses.page(number)
            try:
                part = self._directory.unfinished(self._names[number])
                reply = await storage.in_thread(storage.fetch, page.url, part, page.content_type)
            except (NoObject, StorageLost) as why:
                error: errors.DocPreviewError = errors.Unavailable(
                    f"{page.object} could not be fetched: {why}.", code=grpc.StatusCode.UNAVAILABLE
                )
            else:
                if reply.status in {HTTPStatus.OK, HTTPStatus.PARTIAL_CONTENT}:
                    return
                error = error_of(reply.status, f"{page.object} could not be fetched")
            refused = isinstance(error, errors.PermissionDenied)
            if not left or not (refused or error.retry == "now"):
                raise error
            await (self._addresses.renew(age) if refused else asyncio.sleep(pauses.after()))


async def download(addresses: Addresses, directory: Path, fields: DownloadFields) -> Files:
    """Downloads the pages of a job that has ended with success."""
    if addresses.job.state != PreviewJob.STATE_SUCCESS:
        raise errors.FailedPrecondition(
            f"Job {addresses.job.job_id} has no pages: it has not ended with success. Wait for it, look at its state.",
            code=grpc.StatusCode.FAILED_PRECONDITION,
        )
    if fields.get("parallel", 1) < 1:
        raise errors.InvalidRequest("parallel must be at least 1", code=grpc.StatusCode.INVALID_ARGUMENT)
    await asyncio.to_thread(prepared, directory)
    await addresses.complete()
    pages = PageDirectory(directory, job_id=addresses.job.job_id)
    progress = fields.get("progress") or _silent
    return await Download(addresses, pages, parallel=fields.get("parallel", 8), progress=progress).files()


def error_of(status: int, what: str) -> errors.DocPreviewError:
    """The error for a status of the storage other than success."""
    text = f"{what}: the storage answered {status}."
    if status in _REFUSED:
        return errors.PermissionDenied(text, code=grpc.StatusCode.PERMISSION_DENIED)
    if status == HTTPStatus.NOT_FOUND:
        return errors.NotFound(text, code=grpc.StatusCode.NOT_FOUND)
    if status in {HTTPStatus.CONFLICT, HTTPStatus.PRECONDITION_FAILED}:
        text = f"{what}: the storage has another object of this key, which may not be replaced."
        return errors.FailedPrecondition(text, code=grpc.StatusCode.FAILED_PRECONDITION)
    if status == HTTPStatus.TOO_MANY_REQUESTS or status >= HTTPStatus.INTERNAL_SERVER_ERROR:
        return errors.Unavailable(text, code=grpc.StatusCode.UNAVAILABLE)
    return errors.InternalError(text, code=grpc.StatusCode.UNKNOWN)


def _silent(done: int, total: int, size: int) -> None:
    """Reports nothing."""
