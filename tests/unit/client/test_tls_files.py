"""Files of TLS that the command is given: what is none is told before a connection is tried."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from docpreview_client.cli.app import app

if TYPE_CHECKING:
    from pathlib import Path

NO_PEM = [b"", b"garbage", b"\xff\x00", b"-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"]


@pytest.mark.parametrize("option", ["--ca", "--cert"])
@pytest.mark.parametrize("content", NO_PEM, ids=["empty", "text", "bytes", "broken"])
def test_a_file_without_certificates_is_named_with_its_option(tmp_path: Path, option: str, content: bytes) -> None:
    """Otherwise the command would doubt --key and --cert, though neither was given."""
    path = tmp_path / "it.pem"
    path.write_bytes(content)
    connection = ("--target", "127.0.0.1:1", option, str(path))
    result = CliRunner(env={"COLUMNS": "400"}).invoke(app, ["get", "documents-1250000000", "d1", *connection])
    assert result.exit_code == 2
    assert f"{option} {path} has no certificates in PEM." in result.output
    assert "Check that --key" not in result.output
