"""examples/production: the systemd unit and compose file agree with the configuration, the images and the folder."""

from __future__ import annotations

import configparser
import re
import shlex
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from docpreview_gateway.settings.sections import host_port
from tests.examples.production import PRODUCTION
from tests.packaging.project import ROOT, pyproject, tool
from tests.programs import need

if TYPE_CHECKING:
    from pathlib import Path

UNIT, REDIS_UNIT = PRODUCTION / "docpreview-gateway@.service", PRODUCTION / "docpreview-redis.service"
DOCKERFILE = (ROOT / "Dockerfile").read_text().partition("AS gateway\n")[2]
SETTINGS: dict[str, Any] = yaml.safe_load((PRODUCTION / "gateway.yaml").read_text())
COMPOSE: dict[str, Any] = yaml.safe_load((PRODUCTION / "compose.yaml").read_text())
GATEWAYS = {name: service for name, service in COMPOSE["services"].items() if name.startswith("gateway")}
DRAIN = SETTINGS["drain"]["delay_seconds"] + SETTINGS["drain"]["grace_seconds"]
MADE = {"secrets", "state-1", "state-2", "redis-data"}
"""What `secrets.sh make` makes beside the files that are there."""


def unit(path: Path) -> dict[str, dict[str, list[str]]]:
    """Sections of a unit: each key with its values, for it may stand more than once."""
    found: dict[str, dict[str, list[str]]] = {}

    class Several(dict[str, Any]):
        def __setitem__(self, key: str, value: Any) -> None:
            super().__setitem__(key, [*self.get(key, []), *value] if isinstance(value, list) else value)

    parser = configparser.RawConfigParser(strict=False, dict_type=Several, comment_prefixes="#")
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # as the library documents
    parser.read_string(path.read_text())
    for section in parser.sections():
        found[section] = {key: value.split("\n") for key, value in parser.items(section)}
    return found


def variables(name: str) -> dict[str, str]:
    """Those of a file of the form NAME=VALUE."""
    lines = (PRODUCTION / name).read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def test_systemd_finds_no_mistake_in_the_units(tmp_path: Path) -> None:
    """With the installed programs in the place of those of /opt/docpreview and /usr/bin."""
    analyze = need("systemd-analyze")
    copies = [tmp_path / path.name for path in (UNIT, REDIS_UNIT)]
    for path, copy in zip((UNIT, REDIS_UNIT), copies, strict=True):
        text = path.read_text().replace("/opt/docpreview/bin", str(tool("docpreview-gateway").parent))
        copy.write_text(text.replace("/usr/bin/redis-server", need("redis-server")))
    done = subprocess.run([analyze, "verify", *copies], check=False, capture_output=True, text=True, timeout=60)
    assert (done.returncode, [line for line in done.stderr.splitlines() if "docpreview" in line]) == (0, [])


def test_both_units_are_of_one_folder_and_one_user() -> None:
    gateway, redis = unit(UNIT)["Service"], unit(REDIS_UNIT)["Service"]
    assert [gateway[key] for key in ("User", "WorkingDirectory")] == [
        redis[key] for key in ("User", "WorkingDirectory")
    ]
    assert REDIS_UNIT.name in unit(UNIT)["Unit"]["After"][0].split()
    (folder,) = redis["WorkingDirectory"]
    assert {path.removeprefix(f"{folder}/") for path in redis["ReadWritePaths"][0].split()} <= MADE
    assert shlex.split(redis["ExecStart"][0])[1] == "redis.conf"


def test_the_unit_names_files_of_the_folder_and_stops_no_drain() -> None:
    service = unit(UNIT)["Service"]
    (folder,) = service["WorkingDirectory"]
    for number in "12":
        for path in service["EnvironmentFile"]:
            name = path.removeprefix("-").replace("%i", number).removeprefix(f"{folder}/")
            assert (PRODUCTION / name).exists() or name == "secrets/redis.env"
        # The only folder that it may write is the replica's state.
        assert service["ReadWritePaths"] == [f"{folder}/state-%i"]
        assert variables(f"replica-{number}.env")["DOCPREVIEW_STATE_DIR"] == f"state-{number}"
    assert int(service["TimeoutStopSec"][0]) > DRAIN
    for command in service["ExecStart"] + service["ExecStartPre"]:
        program, *words = shlex.split(command)
        assert program.endswith("/docpreview-gateway")
        assert words[1:] == ["--config", "gateway.yaml"]


def test_the_replicas_have_ports_and_folders_of_their_own() -> None:
    first, second = variables("replica-1.env"), variables("replica-2.env")
    assert first.keys() == second.keys()
    assert not set(first.values()) & set(second.values())
    assert SETTINGS["replicas"] == len(GATEWAYS) == 2


@pytest.mark.parametrize("name", GATEWAYS)
def test_a_container_of_the_gateway_is_what_its_image_expects(name: str) -> None:
    """User, place of the configuration, program and version are those of the Dockerfile."""
    service = GATEWAYS[name]
    version = pyproject()["project"]["version"]
    assert service["image"] == f"docpreview-gateway:{version}"
    assert [service["user"]] == re.findall("^USER (.*)$", DOCKERFILE, re.MULTILINE)
    assert f"DOCPREVIEW_CONFIG={service['working_dir']}/gateway.yaml" in DOCKERFILE
    # It runs the image's own command, on the network of the machine: nothing maps ports.
    assert not service.keys() & {"command", "entrypoint", "ports"}
    assert service["network_mode"] == "host"
    assert int(service["stop_grace_period"].removesuffix("s")) > DRAIN
    number = name.removeprefix("gateway-")
    assert service["env_file"][0] == f"replica-{number}.env"
    assert f"./state-{number}:{service['working_dir']}/state-{number}" in service["volumes"]
    if number == "1":
        given = variables("replica-1.env")
        ports = {str(host_port(given[f"DOCPREVIEW_{which}"])[1]) for which in ("LISTEN", "ADMIN_LISTEN")}
        assert ports == set(re.findall(r"^EXPOSE (\d+) (\d+)$", DOCKERFILE, re.MULTILINE)[0])


def test_the_containers_find_their_files() -> None:
    """Each file and folder of the machine is in the folder, or `secrets.sh make` makes it."""
    for service in COMPOSE["services"].values():
        names = [volume.split(":")[0] for volume in service["volumes"]]
        names += [each["path"] if isinstance(each, dict) else each for each in service.get("env_file", [])]
        for name in names:
            path = name.removeprefix("./")
            assert path in MADE or path.split("/")[0] in MADE or (PRODUCTION / path).exists(), name
    redis = COMPOSE["services"]["redis"]
    assert redis["command"] == ["redis-server", "redis.conf"]
    assert redis["user"] == next(iter(GATEWAYS.values()))["user"]
    # `dir redis-data` and `../secrets` of redis.conf are where the volumes are.
    inside = {volume.split(":")[1].removeprefix(redis["working_dir"] + "/") for volume in redis["volumes"]}
    assert inside == {"redis.conf", "secrets", "redis-data"}
