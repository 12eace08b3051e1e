"""Output for programs: proto3 JSON with the contract's field names, one object per line."""

import json
import sys
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

from google.protobuf import json_format
from google.protobuf.message import Message

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview.v1.preview_queue_service_pb2 import PreviewQueue
from docpreview.v1.usage_service_pb2 import Usage
from docpreview_client.cli.exit_codes import ExitCode
from docpreview_client.cli.views import ForwardedEvent
from docpreview_client.errors import DocPreviewError, PreviewUnfinished


class JsonView:
    """A view that prints JSON lines and flushes each of them immediately."""

    def job(self, job: PreviewJob) -> None:
        """The job as an object."""
        _print_message(job)

    async def jobs(self, jobs: AsyncIterator[PreviewJob]) -> None:
        """One job per line, as they arrive."""
        async for job in jobs:
            _print_message(job)

    async def queues(self, queues: AsyncIterator[PreviewQueue]) -> None:
        """One queue per line, as they arrive."""
        async for queue in queues:
            _print_message(queue)

    def usage(self, usage: Usage) -> None:
        """The pages as an object."""
        _print_message(usage)

    @contextmanager
    def progress(self) -> Iterator["JsonProgress"]:
        """Every state of the job is a line."""
        yield JsonProgress()

    def finished(self, job: PreviewJob) -> None:
        """Prints nothing: the last state is on stdout already."""

    def saved(self, directory: Path, *, files: Sequence[Path]) -> None:
        """An object with the directory and the files in it."""
        _print({"directory": str(directory), "files": [str(file) for file in files]})

    def forwarded(self, event: ForwardedEvent) -> None:
        """An object with `id`, `type` and `job`, and the `status` of the answer or the `error` in its place."""
        job = json_format.MessageToDict(event.job, preserving_proto_field_name=True)
        outcome = {"error": event.problem} if event.status is None else {"status": event.status}
        _print({"id": event.event_id, "type": event.type, "job": job, **outcome})

    def note(self, text: str) -> None:
        """Prints nothing: notes are for people."""

    def error(self, error: DocPreviewError, *, exit_code: ExitCode) -> None:
        """The error as an object on stderr."""
        job_id = error.job.job_id if isinstance(error, PreviewUnfinished) else None
        if isinstance(error, PreviewUnfinished) and isinstance(error.cause, DocPreviewError):
            error = error.cause
        delay = error.retry_delay
        facts: dict[str, Any] = {
            "code": error.code.name,
            "reason": error.reason,
            "message": error.message,
            "retry_delay_seconds": None if delay is None else delay.total_seconds(),
            "field_violations": [{"field": name, "description": text} for name, text in error.field_violations],
            "retry": error.retry,
            "quota": [{"subject": name, "description": text} for name, text in error.quota],
            "metadata": error.metadata,
            "request_id": error.request_id,
        }
        if job_id is not None:
            facts["job_id"] = job_id
        _print({"error": facts, "exit_code": exit_code.value}, to=sys.stderr)


class JsonProgress:
    """Progress as one line per state; downloads have no lines."""

    def changed(self, job: PreviewJob) -> None:
        """The job as an object."""
        _print_message(job)

    def uploading(self, name: str) -> None:
        """Prints nothing: the job says where the document is."""

    def downloaded(self, done: int, *, total: int) -> None:
        """Prints nothing: the files are listed at the end."""


def _print_message(message: Message) -> None:
    _print(json_format.MessageToDict(message, preserving_proto_field_name=True))


def _print(value: dict[str, Any], *, to: TextIO | None = None) -> None:
    stream = to or sys.stdout
    stream.write(json.dumps(value) + "\n")
    stream.flush()
