"""The Python client's runner of the conformance suite: a step in, its result out (tests/conformance/README.md)."""

from __future__ import annotations

import asyncio
import json
import sys
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_client import DocPreviewClient, DocPreviewError, Tls

Step = dict[str, Any]


async def answer(step: Step) -> dict[str, Any]:
    """Makes the call and returns its result."""
    jobs: list[PreviewJob] = []
    try:
        async with AsyncExitStack() as stack:
            client = DocPreviewClient(step["target"], tls=_tls(step["tls"]), token=step["token"])
            await _call(await stack.enter_async_context(client), step, jobs)
    except DocPreviewError as error:
        return {"jobs": [_job(job) for job in jobs], "error": _error(error)}
    return {"jobs": [_job(job) for job in jobs], "error": None}


async def _call(client: DocPreviewClient, step: Step, jobs: list[PreviewJob]) -> None:
    """Makes the call; `jobs` gets each job as it arrives, so that jobs before an error are included."""
    given = step["with"]
    options: dict[str, Any] = {"timeout": timedelta(milliseconds=step["timeout_ms"])}
    if "page_url_ttl_ms" in given:
        options["page_url_ttl"] = timedelta(milliseconds=given["page_url_ttl_ms"])
    match step["call"]:
        case "get" | "wait" as method:
            jobs.append(await getattr(client, method)(given["bucket"], given["job_id"], **options))
            return
        case "create":
            jobs.append(await client.create(**_create_arguments(given), **options))
            return
        case "create_and_watch":
            coming = client.create_and_watch(**_create_arguments(given), **options)
        case "watch":
            coming = client.watch(given["bucket"], given["job_id"], **options)
        case "list":
            coming = client.list(given["bucket"], page_size=given.get("page_size", 0), **options)
        case other:
            raise ValueError(f"{other} is not a call of the table")
    async for job in coming:
        jobs.append(job)  # noqa: PERF401 - those before an error count


def _create_arguments(given: Step) -> dict[str, Any]:
    pages = {name: given[name] for name in ("start_page", "end_page") if name in given}
    fields = {name: value for name, value in given.items() if name not in {*pages, "page_url_ttl_ms"}}
    return fields | ({"options": PreviewOptions(**pages)} if pages else {})


def _tls(paths: dict[str, str] | None) -> Tls | None:
    files: dict[str, Any] = {name: Path(path).read_bytes() for name, path in (paths or {}).items()}
    return None if paths is None else Tls(**files)


def _job(job: PreviewJob) -> dict[str, Any]:
    return {
        "job_id": job.job_id,
        "state": PreviewJob.State.Name(job.state).removeprefix("STATE_"),
        "page_count": job.result.total_page_count,
        "page_urls": sum(bool(page.url) for page in job.result.pages),
    }


def _error(error: DocPreviewError) -> dict[str, Any]:
    return {
        "kind": type(error).__name__,
        "code": error.code.name,
        "reason": error.reason,
        "message": error.message,
        "violations": error.field_violations,
        "retry_delay_ms": None if error.retry_delay is None else error.retry_delay / timedelta(milliseconds=1),
        "metadata": error.metadata,
        "request_id": error.request_id,
    }


def main() -> None:
    """Answers line by line until the input ends."""
    for line in sys.stdin:
        print(json.dumps(asyncio.run(answer(json.loads(line)))), flush=True)


if __name__ == "__main__":
    main()
