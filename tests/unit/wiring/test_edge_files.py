"""The edge's files in their folder."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from docpreview_gateway.wiring import edge_files
from docpreview_gateway.wiring.edge_config import files
from tests.unit.wiring.test_edge_config import TLS, settings

if TYPE_CHECKING:
    from collections.abc import Callable

    from docpreview_gateway.settings.loading import Settings

MADE = settings(tls=TLS | {"client_ca": "/ca/ca.crt"})


def names(folder: Path) -> set[str]:
    """The paths that Envoy reads certificate and authorities from."""
    (secret,) = yaml.safe_load((folder / "certificate.yaml").read_text())["resources"]
    (trusted,) = yaml.safe_load((folder / "authorities.yaml").read_text())["resources"]
    return {
        secret["tls_certificate"]["certificate_chain"]["filename"],
        trusted["validation_context"]["trusted_ca"]["filename"],
    }


def test_the_first_writing_has_the_plain_paths_and_no_other_files(tmp_path: Path) -> None:
    """Exactly what edge_config makes."""
    folder = tmp_path / "new" / "edge"
    edge_files.write(MADE, folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == files(MADE, folder)


@pytest.mark.parametrize("again", [edge_files.write, edge_files.name_again])
def test_every_further_writing_has_other_names_of_the_same_files(
    again: Callable[[Settings, Path], None], tmp_path: Path
) -> None:
    """Or Envoy would read none of them again."""
    edge_files.write(MADE, tmp_path)
    seen = [names(tmp_path)]
    for _ in range(edge_files.SPELLINGS + 1):
        again(MADE, tmp_path)
        seen.append(names(tmp_path))
        assert seen[-1].isdisjoint(seen[-2])
        assert {Path(name) for name in seen[-1]} == {Path("/tls/tls.crt"), Path("/ca/ca.crt")}
    assert seen[edge_files.SPELLINGS] == seen[0]
    assert {path.name for path in tmp_path.iterdir()} == files(MADE, tmp_path).keys()


def test_files_of_other_settings_are_replaced(tmp_path: Path) -> None:
    """By the plain names of the new ones."""
    edge_files.write(settings(tls={"certificate": "/x/a", "key": "/x/b", "client_ca": "/y/c"}), tmp_path)
    edge_files.name_again(MADE, tmp_path)
    assert names(tmp_path) == {"/tls/tls.crt", "/ca/ca.crt"}
