"""The gateway as `docpreview-gateway serve` runs it, with the upstream whose port is the first argument.

With a second, the hash line of a token, it has a policy with permissions and limits, and logs a line for every
call. Without, callers are anonymous and it logs errors only. Prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.telemetry import structured_log
from docpreview_gateway.wiring.event_loop import freeze_startup_objects, run
from docpreview_gateway.wiring.gateway import Gateway

POLICY = """
version: 1
callers:
  bench:
    identities: [{{token: "{token}"}}]
    methods: ["*"]
    buckets: [{{bucket: docs-1250000000, input_prefixes: [""]}}]
    rate: {{per_second: 100000, burst: 100000}}
    concurrency: 1000
"""


def settings(upstream_port: str, state_dir: str, token: str | None) -> Settings:
    known: dict[str, object] = {"logging": {"access": "errors"}}
    if token is not None:
        policy = Path(state_dir) / "policy.yaml"
        policy.write_text(POLICY.format(token=token))
        known = {"policy": {"file": policy}, "logging": {"access": "all"}}
    return Settings.model_validate(
        known
        | {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "buckets": [{"name": "docs-1250000000", "region": "ap-chongqing", "credentials": "main"}],
            "credentials": {"main": {"secret_id": "example-id", "secret_key": "example-key"}},
            "upstream": {"endpoint": f"http://127.0.0.1:{upstream_port}"},
            "state_dir": state_dir,
            "drain": {"delay_seconds": 0, "grace_seconds": 1},
        }
    )


async def main(upstream_port: str, token: str | None = None) -> None:
    structured_log.configure("INFO", json_lines=True)
    with tempfile.TemporaryDirectory() as state_dir:
        async with Gateway(settings(upstream_port, state_dir, token)) as gateway:
            freeze_startup_objects()
            print(gateway.port, flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    run(main(*sys.argv[1:]))
