"""The recorded replies under tests/vectors: one folder per case, a reply and its expected values."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.wire import refusals, responses
from docpreview_gateway.upstream.wire.http import HttpReply

FOLDER = Path(__file__).parents[3] / "vectors"


@dataclass(frozen=True)
class Vector:
    """One case."""

    name: str
    body: bytes
    facts: dict[str, Any]

    def read(self) -> Any:
        """The parsed reply, as plain values."""
        facts, bucket = self.facts, self.facts.get("bucket", "")
        match facts["read"]:
            case "created_job":
                return plain(responses.created_job(self.body, bucket)[0])
            case "one_job":
                return plain(responses.one_job(self.body, bucket, facts["job_id"])[0])
            case "job_page":
                page = responses.job_page(
                    self.body, bucket, with_pages=facts["with_pages"], requested_cursor=facts["asked_cursor"]
                )
                return {"jobs": [plain(job) for job in page.jobs], "cursor": page.cursor}
            case "queue_page":
                queues = responses.queue_page(self.body, bucket)
                return {
                    "queues": [plain(queue) for queue in queues.queues],
                    "total": queues.total,
                    "missing": list(queues.missing),
                }
            case kind:
                raise AssertionError(f"{self.name}: no reader for {kind}")

    def refusal(self) -> UpstreamError:
        """The error of a reply whose status is not 2xx."""
        error = refusals.error_in(HttpReply(self.facts["status"], self.facts["headers"], self.body))
        assert error is not None
        return error


def plain(message: Message) -> dict[str, Any]:
    """A message as JSON values, with the field names of the contract."""
    return MessageToDict(message, preserving_proto_field_name=True)


def load() -> list[Vector]:
    """All cases, by name."""
    return [_load(path.parent) for path in sorted(FOLDER.glob("*/expected.json"))]


def _load(folder: Path) -> Vector:
    [reply] = folder.glob("reply.*")
    return Vector(folder.name, reply.read_bytes(), json.loads((folder / "expected.json").read_text()))
