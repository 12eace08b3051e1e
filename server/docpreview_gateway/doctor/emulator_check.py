"""Check of an emulator in place of the cloud: what it can convert, and its fonts."""

from __future__ import annotations

import json
from http import HTTPStatus
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from docpreview_gateway.doctor.diagnosis import Finding
from docpreview_gateway.model.errors import GatewayError
from docpreview_gateway.upstream.ports import TransportError
from docpreview_gateway.upstream.wire.http import HttpRequest

if TYPE_CHECKING:
    from docpreview_gateway.upstream.ports import Transport

_PARTS = "libreoffice-impress libreoffice-writer libreoffice-calc libreoffice-math"
_OFFICE = f"apt-get install --no-install-recommends {_PARTS}"
_FONTS = "apt-get install fonts-noto-cjk"


async def emulator_findings(transport: Transport, endpoint: str) -> list[Finding]:
    """Findings on the emulator at this endpoint; none when it is no emulator."""
    try:
        reply = await transport.send(HttpRequest("GET", urlsplit(endpoint).netloc, "/_emulator/health"))
        health: Any = json.loads(reply.body)
    except (TransportError, GatewayError, ValueError):
        return []
    if reply.status != HTTPStatus.OK or not isinstance(health, dict) or "libreoffice" not in health:
        return []
    found = [Finding("emulator", endpoint, "is an emulator: nothing is billed, and its pages are not the cloud's")]
    if not health["libreoffice"]:
        what = "has no LibreOffice: jobs of slides, text documents and spreadsheets fail, those of PDFs do not"
        found.append(Finding("emulator", endpoint, what, f"on its machine: {_OFFICE}", is_warning=True))
    if health.get("cjk_fonts") is False:
        what = "has no font for Chinese, Japanese and Korean: their characters are empty boxes"
        found.append(Finding("emulator", endpoint, what, f"on its machine: {_FONTS}", is_warning=True))
    return found
