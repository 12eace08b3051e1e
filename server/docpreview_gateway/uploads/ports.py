"""What uploads need from outside."""

from __future__ import annotations

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


class UploadLog(Protocol):
    """Logs uploads for audits."""

    def upload_ended(self, stage: str, call: Call, outcome: str, facts: dict[str, object]) -> None:
        """Logs the end of a call of UploadService. `facts` has no address, token or key of an object."""
        ...
