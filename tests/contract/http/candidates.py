"""The HTTP clients that the contract and `bench/http_clients.py` run, by name."""

from __future__ import annotations

import importlib
import os
from typing import Any, TypeAlias

from docpreview_gateway.upstream.builtin_transport import BuiltinTransport
from docpreview_gateway.upstream.httpx_transport import HttpxTransport
from tests.contract.http.aiohttp_transport import AiohttpTransport

Candidate: TypeAlias = type[BuiltinTransport | HttpxTransport | AiohttpTransport]

PRODUCTS: dict[str, Candidate] = {"builtin": BuiltinTransport, "httpx": HttpxTransport}
REFUSED = {"aiohttp": "AiohttpTransport", "pyreqwest": "PyreqwestTransport", "httpx2": "Httpx2Transport"}
"""Clients that were refused (docs/adr/0001); `make http-clients` runs them, and installs those that the tests lack."""


def candidate(name: str) -> Any:
    """The client of a name. KeyError for another, ImportError when its package is not there."""
    if name in PRODUCTS:
        return PRODUCTS[name]
    return getattr(importlib.import_module(f"tests.contract.http.{name}_transport"), REFUSED[name])


def chosen() -> list[Any]:
    """The clients under test: what the product can use, or the one that HTTP_CANDIDATE names."""
    name = os.environ.get("HTTP_CANDIDATE")
    return [candidate(name)] if name else list(PRODUCTS.values())
