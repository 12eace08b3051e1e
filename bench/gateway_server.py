"""The gateway as `docpreview-gateway serve` runs it, with the upstream whose port is the argument.

Prints its port and serves until its standard input ends.
"""

from __future__ import annotations

import asyncio
import sys
import tempfile

from docpreview_gateway.adapters import structured_log
from docpreview_gateway.settings import Settings
from docpreview_gateway.wiring import Gateway


def settings(upstream_port: str, state_dir: str) -> Settings:
    return Settings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "buckets": [{"name": "docs-1250000000", "region": "ap-chongqing", "credentials": "main"}],
            "credentials": {"main": {"secret_id": "example-id", "secret_key": "example-key"}},
            "upstream": {"endpoint": f"http://127.0.0.1:{upstream_port}"},
            "state_dir": state_dir,
            "drain": {"delay_seconds": 0, "grace_seconds": 1},
        }
    )


async def main(upstream_port: str) -> None:
    structured_log.configure("INFO", json_lines=True)
    with tempfile.TemporaryDirectory() as state_dir:
        async with Gateway(settings(upstream_port, state_dir)) as gateway:
            print(gateway.port, flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1]))
