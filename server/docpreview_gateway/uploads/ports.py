"""What uploads need from outside."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from docpreview_gateway.model.call import Call


class TokenSecrets(Protocol):
    """Secrets of which the keys of upload tokens are derived: the same at all replicas."""

    def secret_keys(self, name: str) -> Sequence[str]:
        """The secret key of the credential set of this name, then those that it replaced, newest first."""
        ...


class UploadsTelemetry(Protocol):
    """Counts uploads."""

    def uploaded(self, caller: str, stage: Literal["announced", "completed"], size: int) -> None:
        """Counts the bytes of an upload of a caller that was begun, or completed."""
        ...


@dataclass(slots=True)
class UploadFacts:
    """What is known of an upload when a call about it ends."""

    bucket: str = ""
    object: str = ""
    upload_id: str = ""
    content_length: int = 0


class UploadLog(Protocol):
    """Logs uploads for audits."""

    def upload_ended(
        self, stage: Literal["create", "complete", "abort"], call: Call, outcome: str, facts: UploadFacts
    ) -> None:
        """Logs the end of a call of UploadService whose request was read."""
        ...
