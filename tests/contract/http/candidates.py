"""The HTTP clients that the contract and `bench/http_clients.py` run, by name."""

from __future__ import annotations

import importlib
import os
from typing import Any, TypeAlias

from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.httpx_transport import HttpxTransport
from tests.contract.http.aiohttp_transport import AiohttpTransport

Candidate: TypeAlias = type[BuiltinTransport | HttpxTransport | AiohttpTransport]

ALWAYS: dict[str, Candidate] = {"builtin": BuiltinTransport, "httpx": HttpxTransport, "aiohttp": AiohttpTransport}
ON_REQUEST = {"pyreqwest": "PyreqwestTransport", "httpx2": "Httpx2Transport"}
"""Clients that were refused and are not installed with the tests: `make http-clients` installs them."""


def candidate(name: str) -> Any:
    """The client of a name. KeyError for another, ImportError when its package is not there."""
    if name in ALWAYS:
        return ALWAYS[name]
    return getattr(importlib.import_module(f"tests.contract.http.{name}_transport"), ON_REQUEST[name])


def chosen() -> list[Any]:
    """The clients under test: what the product can use and aiohttp, or the one that HTTP_CANDIDATE names."""
    name = os.environ.get("HTTP_CANDIDATE")
    return [candidate(name)] if name else list(ALWAYS.values())
