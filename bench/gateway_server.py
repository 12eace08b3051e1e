"""The gateway as `docpreview-gateway serve` runs it, with the upstream whose port is the first argument.

With a second, the hash line of a token, it has a policy with permissions and limits, and logs a line for every
call. Without, callers are anonymous and it logs errors only. With `--callbacks` its creates ask for completion
callbacks, with `--poll SECONDS` jobs that are watched are polled so often. Prints its port and serves until its
standard input ends.
"""

from __future__ import annotations

import argparse
import asyncio
import socket
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


def settings(options: argparse.Namespace, state_dir: str) -> Settings:
    known: dict[str, object] = {"logging": {"access": "errors"}}
    if options.token_hash is not None:
        policy = Path(state_dir) / "policy.yaml"
        policy.write_text(POLICY.format(token=options.token_hash))
        known = {"policy": {"file": policy}, "logging": {"access": "all"}}
    if options.callbacks:
        address = f"127.0.0.1:{free_port()}"
        known["callbacks"] = {"public_url": f"http://{address}/callback", "listen": address}
    if options.poll is not None:
        known["watch"] = {"poll_floor_seconds": options.poll, "poll_cap_seconds": options.poll}
    return Settings.model_validate(
        known
        | {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "buckets": [{"name": "docs-1250000000", "region": "ap-chongqing", "credentials": "main"}],
            "credentials": {"main": {"secret_id": "example-id", "secret_key": "example-key"}},
            "upstream": {"endpoint": f"http://127.0.0.1:{options.upstream_port}"},
            "state_dir": state_dir,
            "drain": {"delay_seconds": 0, "grace_seconds": 1},
        }
    )


def free_port() -> int:
    """A port for callbacks: their address has to be known before the gateway listens there."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port: int = server.getsockname()[1]
        return port


async def main(options: argparse.Namespace) -> None:
    structured_log.configure("INFO", json_lines=True)
    with tempfile.TemporaryDirectory() as state_dir:
        async with Gateway(settings(options, state_dir)) as gateway:
            freeze_startup_objects()
            print(gateway.port, flush=True)
            await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("upstream_port")
    parser.add_argument("token_hash", nargs="?")
    parser.add_argument("--callbacks", action="store_true")
    parser.add_argument("--poll", type=float, metavar="SECONDS")
    run(main(parser.parse_args()))
