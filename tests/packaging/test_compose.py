"""The compose files, as the loader of Compose itself reads them; tests/image runs what the one of the root says."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from docpreview_emulator.dev import ADMIN_PORT, EMULATOR_PORT, GRPC_PORT, example_settings
from tests.packaging.project import ROOT, pyproject, run, tracked_files
from tests.programs import need

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

LOADER = "github.com/compose-spec/compose-go/v2/cmd@v2.16.2"
FILES = sorted(str(path.relative_to(ROOT)) for path in tracked_files() if path.name == "compose.yaml")


def loaded(path: Path) -> subprocess.CompletedProcess[str]:
    return run(need("go"), "run", LOADER, path, cwd=path.parent, env=os.environ | {"GOFLAGS": "-mod=mod"})


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
    return found


@pytest.mark.parametrize("name", FILES)
def test_the_loader_of_compose_accepts_every_compose_file(name: str, tmp_path: Path) -> None:
    """And refuses it with a misspelt key. Files that the user makes, such as secrets, need not be there."""
    text = (ROOT / name).read_text()
    found = yaml.safe_load(text)
    for service in found["services"].values():
        service.pop("env_file", None)
    path = tmp_path / "compose.yaml"
    path.write_text(yaml.safe_dump(found))
    done = loaded(path)
    assert done.returncode == 0, done.stderr
    first = next(iter(found["services"]))
    found["services"][first]["imagee"] = "x"
    path.write_text(yaml.safe_dump(found))
    assert f"services.{first}.imagee" in loaded(path).stderr


def test_the_trial_is_reachable_from_this_machine_only() -> None:
    """The emulator takes uploads from everybody, and the gateway calls."""
    ports = [port for service in services().values() for port in service["ports"]]
    assert len(ports) == 3
    assert [port for port in ports if not port.startswith("127.0.0.1:")] == []


def test_the_trial_has_the_addresses_and_the_configuration_of_dev() -> None:
    """Its first lines are those that `docpreview-gateway dev` prints where no port is taken."""
    head = (ROOT / "compose.yaml").read_text().partition("\nname:")[0]
    shown = {words[1]: words[2] for words in map(str.split, head.splitlines()) if len(words) > 2}
    ports = (GRPC_PORT, ADMIN_PORT, EMULATOR_PORT)
    assert shown["gRPC"] == f"127.0.0.1:{GRPC_PORT}"
    assert shown["admin"] == f"http://127.0.0.1:{ADMIN_PORT}/"
    assert shown["emulator"] == f"http://127.0.0.1:{EMULATOR_PORT}/"
    published = {port for service in services().values() for port in service["ports"]}
    assert published == {f"127.0.0.1:{port}:{port}" for port in ports}
    (mounted,) = [volume for volume in services()["gateway"]["volumes"] if volume.startswith("./")]
    assert yaml.safe_load((ROOT / mounted.partition(":")[0]).read_text()) == example_settings()


def test_the_trials_containers_are_as_confined_as_the_charts() -> None:
    """Read-only root, no capabilities; they run as the user of their images."""
    for service in services().values():
        assert service["read_only"] is True
        assert service["cap_drop"] == ["ALL"]
        assert service["security_opt"] == ["no-new-privileges:true"]
        assert "user" not in service


def test_the_trials_images_are_those_of_this_version() -> None:
    """As `make image` names them."""
    version = pyproject()["project"]["version"]
    assert {name: service["image"] for name, service in services().items()} == {
        name: f"docpreview-{name}:{version}" for name in ("emulator", "gateway")
    }


def test_check_config_accepts_the_trials_configuration() -> None:
    """The file and the variables of the service `gateway`."""
    gateway = services()["gateway"]
    (mounted,) = [volume for volume in gateway["volumes"] if volume.endswith(":/etc/docpreview/gateway.yaml:ro")]
    own = {name: value for name, value in os.environ.items() if not name.startswith("DOCPREVIEW_")}
    words = (sys.executable, "-m", "docpreview_gateway", "check-config", "--config", ROOT / mounted.partition(":")[0])
    done = run(*words, env=own | gateway["environment"])
    assert (done.returncode, done.stderr) == (0, "")
    assert "gRPC on 0.0.0.0:50051" in done.stdout
