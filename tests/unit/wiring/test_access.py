"""Keys that the gateway fetches from an issuer, and whether what the issuer has now is refused."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry

from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.telemetry.prometheus_access import PrometheusAccess
from docpreview_gateway.wiring.access import Access
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.integration.identity import Policy

if TYPE_CHECKING:
    from pathlib import Path

KEY = jwt.algorithms.ECAlgorithm.to_jwk(ec.generate_private_key(ec.SECP256R1()).public_key())
JWKS = json.dumps({"keys": [json.loads(KEY) | {"kid": "k", "use": "sig"}]})


async def test_keys_of_an_issuer_are_refused_from_the_first_answer_without_any_to_the_next_with_some(
    tmp_path: Path,
) -> None:
    """An issuer that does not answer changes nothing: another alert tells of that."""
    answers = iter(["{}", JWKS, "{}", "", JWKS])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = next(answers)
        status = "200 OK" if body else "503 Unavailable"
        writer.write(f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
        writer.close()

    policy = Policy.of_two(tmp_path)
    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/jwks"
        buckets = [
            {"name": found["buckets"][0]["bucket"], "region": "ap-chongqing", "credentials": "main"}
            for found in policy.callers.values()
        ]
        settings = Settings.model_validate(
            {
                "buckets": buckets,
                "credentials": {"main": {"secret_id": "an-id", "secret_key": "a-key"}},
                "policy": {"file": str(policy.path)},
                "auth": {"jwt": [{"issuer": "https://idp", "audience": "a", "jwks_url": url}]},
            }
        )
        access = Access(settings, SystemClock(), PrometheusAccess(registry := CollectorRegistry()))
        access.authenticator()
        refused = []
        for _ in range(5):
            await access.refresh_keys()
            refused.append(registry.get_sample_value("docpreview_file_refused", {"file": "jwks"}))
    assert refused == [1, 0, 1, 1, 0]
