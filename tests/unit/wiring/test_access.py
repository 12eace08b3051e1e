"""Keys that the gateway fetches from an issuer, whether what it has now is refused; what the log says of a policy."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING

import jwt
from cryptography.hazmat.primitives.asymmetric import ec
from prometheus_client import CollectorRegistry
from structlog.testing import capture_logs

from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.telemetry.prometheus_access import PrometheusAccess
from docpreview_gateway.wiring.access import Access
from docpreview_gateway.wiring.system_clock import SystemClock
from tests.integration.conftest import BUCKET, OTHER_BUCKET
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


async def test_a_reloaded_policy_is_logged_with_the_names_that_came_and_went_ten_at_most(tmp_path: Path) -> None:
    """And with the number of its callers, whose tokens nobody logs."""
    policy = Policy.of_two(tmp_path)
    buckets = [{"name": name, "region": "ap-chongqing", "credentials": "main"} for name in (BUCKET, OTHER_BUCKET)]
    settings = Settings.model_validate(
        {
            "buckets": buckets,
            "credentials": {"main": {"secret_id": "an-id", "secret_key": "a-key"}},
            "policy": {"file": str(policy.path)},
        }
    )
    access = Access(settings, SystemClock(), PrometheusAccess(CollectorRegistry()))
    access.authenticator()

    async def reloaded() -> dict[str, object]:
        policy.write()
        with capture_logs() as entries:
            for _ in range(2):
                await access.reloading.check()
        (line,) = entries
        assert not any(secret in str(line) for secret in policy.tokens.values())
        assert (line.pop("event"), line.pop("file"), line.pop("log_level")) == ("reloaded", "policy", "info")
        return dict(line)

    del policy.callers["two"]
    policy.add("three")
    assert await reloaded() == {"callers": 2, "added": ["three"], "removed": ["two"]}
    policy.callers["one"]["methods"] = ["GetPreviewJob"]
    assert await reloaded() == {"callers": 2}
    for number in range(12):
        policy.add(f"many-{number:02}")
    names = [f"many-{number:02}" for number in range(10)]
    assert await reloaded() == {"callers": 14, "added": [*names, "and 2 more"]}
