"""Download of a job's pages from their signed URLs to a directory.

A signed URL is a secret and never part of a message. File names are generated here, never taken from replies.
"""

import asyncio
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import grpc
import httpx
from httpx_aiohttp import HttpxAiohttpClient

from docpreview.v1.preview_job_pb2 import Page
from docpreview_client import errors

_CONCURRENCY: Final = 4
_CHUNK: Final = 1024 * 1024
_SUFFIX: Final = re.compile(r"\.[A-Za-z0-9]{1,8}$")
_TIMEOUT: Final = httpx.Timeout(30.0)
_REFUSED: Final = frozenset({401, 403})


async def download(pages: Sequence[Page], directory: Path, *, downloaded: Callable[[int], None]) -> list[Path]:
    """Saves the pages as `page-0001.jpg` and so on, over files of those names.

    The number is the page's, or its index in the result where several pages have the same number (sheets).

    `downloaded` is called with the number of complete files, beginning with 0.

    Raises:
        DocPreviewError: A page could not be fetched; complete files are not removed.
    """
    if not pages:
        return []
    await asyncio.to_thread(directory.mkdir, parents=True, exist_ok=True)
    files = [directory / name for name in _names(pages)]
    downloaded(0)
    done = 0
    permits = asyncio.Semaphore(_CONCURRENCY)

    async def fetch(page: Page, file: Path) -> None:
        nonlocal done
        async with permits:
            await _fetch(client, page, file=file)
        done += 1
        downloaded(done)

    async with HttpxAiohttpClient(timeout=_TIMEOUT) as client:
        try:
            async with asyncio.TaskGroup() as group:
                for page, file in zip(pages, files, strict=True):
                    group.create_task(fetch(page, file))
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from None
    return files


async def _fetch(client: httpx.AsyncClient, page: Page, *, file: Path) -> None:
    if not page.url.startswith(("https://", "http://")):
        raise errors.FailedPrecondition(
            f"{page.object} has no URL: the gateway's policy does not give it to this caller, its bucket is not "
            "configured, or the job cannot have made it.",
            code=grpc.StatusCode.FAILED_PRECONDITION,
        )
    part = file.with_name(f"{file.name}.part")
    try:
        async with client.stream("GET", page.url) as response:
            _check(response, page)
            with await asyncio.to_thread(part.open, "wb") as output:
                async for chunk in response.aiter_bytes(_CHUNK):
                    await asyncio.to_thread(output.write, chunk)
        await asyncio.to_thread(part.replace, file)
    except httpx.HTTPError as error:
        # Without the cause, whose text contains the URL.
        raise errors.Unavailable(
            f"{page.object} could not be fetched: {type(error).__name__}.", code=grpc.StatusCode.UNAVAILABLE
        ) from None
    finally:
        part.unlink(missing_ok=True)


def _check(response: httpx.Response, page: Page) -> None:
    status = response.status_code
    if status == httpx.codes.OK:
        return
    text = f"{page.object} could not be fetched: the storage answered {status}."
    if status in _REFUSED:
        raise errors.PermissionDenied(text, code=grpc.StatusCode.PERMISSION_DENIED)
    if status == httpx.codes.NOT_FOUND:
        raise errors.NotFound(text, code=grpc.StatusCode.NOT_FOUND)
    if status == httpx.codes.TOO_MANY_REQUESTS or status >= httpx.codes.INTERNAL_SERVER_ERROR:
        raise errors.Unavailable(text, code=grpc.StatusCode.UNAVAILABLE)
    raise errors.InternalError(text, code=grpc.StatusCode.UNKNOWN)


def _names(pages: Sequence[Page]) -> list[str]:
    numbers = [page.page_number for page in pages]
    if len(set(numbers)) < len(numbers):
        numbers = list(range(1, len(pages) + 1))
    return [f"page-{number:04d}{_suffix(page)}" for number, page in zip(numbers, pages, strict=True)]


def _suffix(page: Page) -> str:
    found = _SUFFIX.search(page.object)
    return found.group().lower() if found else ""
