"""User data of a job as it is sent: the caller's text, followed by the marker that identifies the create.

    dg2-<key 24><body 12><caller 5><nonce 6><check 6>      57 characters of base32, lower case

The vendor's limit of 1,024 characters leaves 960 for the caller (`model/validation.py`), a blank and the marker.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest

KEY_LENGTH, BODY_LENGTH, CALLER_LENGTH, NONCE_LENGTH, CHECK_LENGTH = 24, 12, 5, 6, 6
MARKER_PREFIX = "dg2-"
_LENGTHS = (KEY_LENGTH, BODY_LENGTH, CALLER_LENGTH, NONCE_LENGTH, CHECK_LENGTH)
_MARKER = re.compile(MARKER_PREFIX + "".join(f"([a-z2-7]{{{length}}})" for length in _LENGTHS))
_OLD_MARKER = re.compile(r"dg1-[a-z2-7]{26}")

TOKEN_PLACEHOLDER = "${RequestToken}"
"""Placeholder in an output template; replaced by a token of the create, so that the output path identifies it."""


class Marker(NamedTuple):
    """What a job carries to be recognised: of its create, its request, its caller, the attempt, and a check."""

    key: str
    body: str
    caller: str
    nonce: str
    check: str

    def __str__(self) -> str:
        return MARKER_PREFIX + "".join(self)


def marked(request: CreatePreviewJobRequest, marker: Marker, token: str) -> CreatePreviewJobRequest:
    """The request with the marker at the end of its user data, and `token` for the placeholder of its output path."""
    sent = CreatePreviewJobRequest()
    sent.CopyFrom(request)
    sent.user_data = f"{request.user_data} {marker}" if request.user_data else str(marker)
    sent.output.object = request.output.object.replace(TOKEN_PLACEHOLDER, token)
    return sent


def split_user_data(user_data: str) -> tuple[str, str]:
    """The caller's text and the gateway's marker; each may be empty."""
    text, _, last = user_data.rpartition(" ")
    if _MARKER.fullmatch(last) or _OLD_MARKER.fullmatch(last):
        return text, last
    return user_data, ""


def read_marker(text: str) -> Marker | None:
    """The marker in this form, forged or not; None for any other text."""
    found = _MARKER.fullmatch(text)
    return Marker(*found.groups()) if found else None
