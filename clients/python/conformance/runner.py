"""The Python client's runner of the conformance suite: a step in, its result out (tests/conformance/README.md)."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from busy import busy

from docpreview.v1.preview_job_pb2 import JobFailure, PreviewJob, PreviewOptions
from docpreview_client import BudgetExhausted, DocPreviewClient, DocPreviewError, Throttled, Tls

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

Step = dict[str, Any]


async def answer(step: Step) -> dict[str, Any]:
    """Makes the call and returns its result."""
    made = Made(step)
    error = None
    try:
        async with DocPreviewClient(step["target"], tls=_tls(step["tls"]), token=step["token"]) as client:
            await made.call(client)
    except DocPreviewError as raised:
        error = _error(raised)
    return {"jobs": [_job(job) for job in made.jobs], "error": error, **made.more}


class Made:
    """One call, and what came of it: jobs as they arrive, so that those before an error are included, and the rest."""

    def __init__(self, step: Step) -> None:
        self.jobs: list[PreviewJob] = []
        self.more: dict[str, Any] = {}
        self._name: str = step["call"]
        self._given = dict(step["with"])
        self._options: dict[str, Any] = {"timeout": timedelta(milliseconds=step["timeout_ms"])}
        if "page_url_ttl_ms" in self._given:
            self._options["page_url_ttl"] = timedelta(milliseconds=self._given.pop("page_url_ttl_ms"))

    async def call(self, client: DocPreviewClient) -> None:
        """Makes it."""
        if self._name in {"create_and_watch", "watch", "list"}:
            async for job in self._coming(client):
                self.jobs.append(job)
        else:
            await getattr(self, f"_{self._name}")(client, self._given)

    def _coming(self, client: DocPreviewClient) -> AsyncGenerator[PreviewJob, None]:
        arguments = _create_arguments(self._given) if self._name == "create_and_watch" else self._given
        coming: AsyncGenerator[PreviewJob, None] = getattr(client, self._name)(**arguments, **self._options)
        return coming

    async def _get(self, client: DocPreviewClient, given: Step) -> None:
        self.jobs.append(await client.get(**given, **self._options))

    async def _wait(self, client: DocPreviewClient, given: Step) -> None:
        self.jobs.append(await client.wait(**given, **self._options))

    async def _create(self, client: DocPreviewClient, given: Step) -> None:
        self.jobs.append(await client.create(**_create_arguments(given), **self._options))

    async def _upload(self, client: DocPreviewClient, given: Step) -> None:
        uploaded = await client.upload(given.pop("path"), **given, **self._options)
        self.more["uploaded"] = {"object": uploaded.object, "content_length": uploaded.content_length}

    async def _preview(self, client: DocPreviewClient, given: Step) -> None:
        job, files = await client.preview(given.pop("path"), **given, **self._options)
        self.jobs.append(job)
        self.more["files"] = _sizes(files)

    async def _download(self, client: DocPreviewClient, given: Step) -> None:
        job = await client.get(given["bucket"], given["job_id"], **self._options)
        self.more["files"] = _sizes(await client.download(job, given["directory"], **self._options))

    async def _watch_many(self, client: DocPreviewClient, given: Step) -> None:
        errors: list[tuple[str, str]] = []
        self.more["job_errors"] = errors
        async for event in client.watch_many(**given, **self._options):
            if isinstance(event, PreviewJob):
                self.jobs.append(event)
            else:
                errors.append((event.job_id, event.reason))

    async def _busy(self, client: DocPreviewClient, given: Step) -> None:
        self.more["busy"] = await busy(client, given)


def _create_arguments(given: Step) -> dict[str, Any]:
    pages = {name: given[name] for name in ("start_page", "end_page") if name in given}
    fields = {name: value for name, value in given.items() if name not in pages}
    return fields | ({"options": PreviewOptions(**pages)} if pages else {})


def _sizes(files: list[Path]) -> list[tuple[str, int]]:
    return [(file.name, file.stat().st_size) for file in files]


def _tls(paths: dict[str, str] | None) -> Tls | None:
    files: dict[str, Any] = {name: Path(path).read_bytes() for name, path in (paths or {}).items()}
    return None if paths is None else Tls(**files)


def _job(job: PreviewJob) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "state": PreviewJob.State.Name(job.state).removeprefix("STATE_"),
        "page_count": job.result.total_page_count,
        "page_urls": sum(bool(page.url) for page in job.result.pages),
        "failure_reason": JobFailure.Reason.Name(job.failure.reason).removeprefix("REASON_")
        if job.failure.reason
        else "",
    }


def _error(error: DocPreviewError) -> dict[str, Any]:
    return {
        # The table has the kinds that all languages have.
        "kind": "Throttled" if isinstance(error, Throttled | BudgetExhausted) else type(error).__name__,
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "violations": error.field_violations,
        "retry_delay_ms": None if error.retry_delay is None else error.retry_delay / timedelta(milliseconds=1),
        "metadata": error.metadata,
        "request_id": error.request_id,
        "retry": error.retry,
        "quota": error.quota,
    }


def main() -> None:
    """Answers line by line until the input ends."""
    for line in sys.stdin:
        print(json.dumps(asyncio.run(answer(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
