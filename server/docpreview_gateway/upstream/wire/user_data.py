"""The user data of a job on the wire: the caller's own, and behind it the marker by which a create is found again."""

from __future__ import annotations

import base64
import hmac

from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest

MARKER_PREFIX = "dg1-"


_MARKER_LENGTH = len(MARKER_PREFIX) + 26


TOKEN_PLACEHOLDER = "${RequestToken}"
"""In an output template: replaced by the marker, so that the result's path proves whose job it is."""


def marker(secret: bytes, scope: bytes) -> str:
    """Printable ASCII that is unique to a create and tells nothing about its caller."""
    digest = hmac.digest(secret, b"marker\n" + scope, "sha256")
    return MARKER_PREFIX + base64.b32encode(digest).decode().lower()[: _MARKER_LENGTH - len(MARKER_PREFIX)]


def marked(request: CreatePreviewJobRequest, marker: str) -> CreatePreviewJobRequest:
    """The request as it is sent: the marker at the end of the user data, and in the output path where it is wanted."""
    sent = CreatePreviewJobRequest()
    sent.CopyFrom(request)
    sent.user_data = f"{request.user_data} {marker}".strip()
    sent.output.object = request.output.object.replace(TOKEN_PLACEHOLDER, marker)
    return sent


def split_user_data(user_data: str) -> tuple[str, str]:
    """The creator's own text and the gateway's marker; each may be empty."""
    text, _, last = user_data.rpartition(" ")
    if last.startswith(MARKER_PREFIX) and len(last) == _MARKER_LENGTH:
        return text, last
    return user_data, ""
