"""A gateway in front of an emulator, as a process of its own, for tests of services that call it."""

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from docpreview_emulator.emulator import Emulator

BUCKET = "examplebucket-1250000000"
REGION = "ap-chongqing"
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class RunningGateway:
    """Where a gateway is, and what it serves."""

    address: str
    """Host and port, without TLS: what a client takes as its target."""

    bucket: str
    """The bucket that it is configured with; every caller may do everything in it."""

    region: str
    """The region of the bucket, for `Emulator.put_object`."""

    log: Path
    """The file with its log, in JSON lines."""


@contextmanager
def gateway_before(emulator: Emulator, folder: Path) -> Iterator[RunningGateway]:
    """The gateway, serving; its configuration, records and log are in the folder, and it is killed when the block ends.

    Variables of the environment do not change it.

    Raises:
        RuntimeError: It did not start; the message has its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    configuration, log = folder / "gateway.yaml", folder / "gateway.log"
    configuration.write_text(json.dumps(_settings(emulator, folder)))
    # -P: a module of the tests' folder, such as `redis.py`, is not the gateway's.
    command = (sys.executable, "-P", "-m", "docpreview_gateway", "serve", "--config", str(configuration))
    variables = {name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
    serving: Future[dict[str, Any]] = Future()
    with subprocess.Popen(command, env=variables, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:  # noqa: S603 - our own command
        reader = threading.Thread(target=_read, args=(process, log, serving), name="docpreview-gateway-log")
        reader.start()
        try:
            ports = serving.result(_START_SECONDS)
            yield RunningGateway(f"127.0.0.1:{ports['grpc_port']}", BUCKET, REGION, log)
        finally:
            process.kill()  # there is nobody to drain for
            reader.join()


def _settings(emulator: Emulator, folder: Path) -> dict[str, Any]:
    secret_id, credential = next(iter(emulator.credentials.items()))
    return {
        "listen": "127.0.0.1:0",
        "admin_listen": "127.0.0.1:0",
        "state_dir": str(folder),
        "logging": {"format": "json"},
        "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main"}],
        "credentials": {"main": {"secret_id": secret_id, "secret_key": credential.secret_key}},
        "upstream": {"endpoint": emulator.url, "object_url_base": f"{emulator.url}/_emulator/objects/{{host}}"},
    }


def _read(process: subprocess.Popen[bytes], log: Path, serving: "Future[dict[str, Any]]") -> None:
    """Copy the log of a process to a file until it ends, and tell the fields of its line `serving`."""
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    with log.open("wb") as copy:
        for line in process.stderr:
            copy.write(line)
            copy.flush()
            if b'"serving"' in line:
                serving.set_result(json.loads(line))
    if not serving.done():
        serving.set_exception(RuntimeError(f"the gateway did not start:\n{log.read_text(errors='replace')}"))
