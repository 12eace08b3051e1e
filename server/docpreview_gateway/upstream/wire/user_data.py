"""User data of a job as it is sent: the caller's text, followed by the marker that identifies the create."""

from __future__ import annotations

import base64
import hmac

from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest

MARKER_PREFIX = "dg1-"
_MARKER_LENGTH = len(MARKER_PREFIX) + 26

TOKEN_PLACEHOLDER = "${RequestToken}"
"""Placeholder in an output template; replaced by the marker, so that the output path identifies the create."""


def marker(secret: bytes, scope: bytes) -> str:
    """A marker in printable ASCII, unique to a create, which reveals nothing about its caller."""
    digest = hmac.digest(secret, b"marker\n" + scope, "sha256")
    return MARKER_PREFIX + base64.b32encode(digest).decode().lower()[: _MARKER_LENGTH - len(MARKER_PREFIX)]


def marked(request: CreatePreviewJobRequest, marker: str) -> CreatePreviewJobRequest:
    """The request with the marker at the end of its user data, and in its output path if that has the placeholder."""
    sent = CreatePreviewJobRequest()
    sent.CopyFrom(request)
    sent.user_data = f"{request.user_data} {marker}".strip()
    sent.output.object = request.output.object.replace(TOKEN_PLACEHOLDER, marker)
    return sent


def split_user_data(user_data: str) -> tuple[str, str]:
    """The caller's text and the gateway's marker; each may be empty."""
    text, _, last = user_data.rpartition(" ")
    if last.startswith(MARKER_PREFIX) and len(last) == _MARKER_LENGTH:
        return text, last
    return user_data, ""
