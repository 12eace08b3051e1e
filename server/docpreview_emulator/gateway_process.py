"""A gateway in front of an emulator, as a process of its own, for tests of services that call it and for `dev`."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from docpreview_emulator.server_process import Command, ServerProcess

if TYPE_CHECKING:
    from docpreview_emulator.emulator import Emulator

BUCKET = "examplebucket-1250000000"
REGION = "ap-chongqing"
CONFIGURATION = "gateway.yaml"
_LOG = "gateway.log"
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
def gateway_before(emulator: "Emulator", folder: Path) -> Iterator[RunningGateway]:
    """The gateway, serving; its configuration, records and log are in the folder, and it is killed when the block ends.

    Variables of the environment do not change it.

    Raises:
        RuntimeError: It did not start; the message has its log.
    """
    folder.mkdir(parents=True, exist_ok=True)
    secret_id, credential = next(iter(emulator.credentials.items()))
    own = {"listen": "127.0.0.1:0", "admin_listen": "127.0.0.1:0", "state_dir": str(folder)}
    (folder / CONFIGURATION).write_text(json.dumps(own | settings(emulator.url, secret_id, credential.secret_key)))
    with ServerProcess(gateway_command(folder)) as process:  # killed: there is nobody to drain for
        grpc_port, _ = ports(process.serving.result(_START_SECONDS))
        yield RunningGateway(f"127.0.0.1:{grpc_port}", BUCKET, REGION, folder / _LOG)


def settings(url: str, secret_id: str, secret_key: str) -> dict[str, Any]:
    """Settings of a gateway for one bucket, whose cloud is the emulator at `url`."""
    return {
        "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main"}],
        "credentials": {"main": {"secret_id": secret_id, "secret_key": secret_key}},
        "upstream": {"endpoint": url, "object_url_base": object_url_base(url)},
    }


def object_url_base(url: str) -> str:
    """Where a browser gets the objects of the emulator at `url`."""
    return f"{url}/_emulator/objects/{{host}}"


def gateway_command(folder: Path, **more: Any) -> Command:  # noqa: ANN401 - as Command has them
    """The command of a gateway whose configuration and log, of JSON lines, are in a folder."""
    # -P: a module of the current folder, such as `redis.py`, is not the gateway's.
    serve = (sys.executable, "-P", "-m", "docpreview_gateway", "serve")
    words = (*serve, "--config", str(folder / CONFIGURATION), "--log-format", "json")
    return Command("gateway", words, folder / _LOG, mark='"serving"', **more)


def first_bucket(folder: Path) -> str:
    """The first bucket of the configuration in a folder, of a gateway that serves."""
    configuration = yaml.safe_load((folder / CONFIGURATION).read_bytes())
    return str(configuration["buckets"][0]["name"])


def ports(line: str) -> tuple[int, int]:
    """The ports of gRPC and of the admin pages, as the gateway logs them when it serves."""
    entry = json.loads(line)
    return entry["grpc_port"], entry["admin_port"]
