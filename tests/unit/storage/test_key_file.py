"""The file with a deployment's secret for creates."""

from __future__ import annotations

import stat
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.storage.key_file import KeyFileError, deployment_secrets, read_secrets

if TYPE_CHECKING:
    from pathlib import Path

OLD, NEW = bytes(range(32)), bytes(range(100, 148))
RAW = b"thirty-two bytes, as they stand!"


def written(folder: Path, content: bytes) -> Path:
    path = folder / "keys"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize(
    ("content", "secrets"),
    [
        (b64encode(OLD), [OLD]),
        (b64encode(NEW) + b"\n" + b64encode(OLD) + b"\n", [NEW, OLD]),
        (b"\r\n" + b64encode(NEW) + b"\r\n\r\n" + RAW + b"\r\n", [NEW, RAW]),
        (RAW, [RAW]),
        (b"0123456789abcdef" * 2, [b"0123456789abcdef" * 2]),
    ],
)
def test_each_line_is_a_secret_in_base64_or_as_it_is(tmp_path: Path, content: bytes, secrets: list[bytes]) -> None:
    """The current one first."""
    path = written(tmp_path, content)
    assert read_secrets(path) == secrets
    assert deployment_secrets(path, tmp_path / "unused") == (secrets, False)
    assert not (tmp_path / "unused").exists()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is empty. Write the output of `openssl rand -base64 32` to it"),
        (b"\n \n", "is empty"),
        (b64encode(OLD) + b"\n" + b64encode(OLD[:16]), "line 2 has fewer than 32 bytes"),
        (b"canary", "line 1 has fewer than 32 bytes"),
    ],
)
def test_a_secret_that_is_too_short_is_refused_and_not_quoted(tmp_path: Path, content: bytes, problem: str) -> None:
    """The message names file and line."""
    path = written(tmp_path, content)
    with pytest.raises(KeyFileError) as caught:
        read_secrets(path)
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert "canary" not in str(caught.value)


def test_a_file_that_is_configured_is_never_made(tmp_path: Path) -> None:
    """A wrong path would be another secret."""
    with pytest.raises(KeyFileError, match="No such file"):
        deployment_secrets(tmp_path / "missing", tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_without_a_configured_file_one_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    """The folder too, if it is missing."""
    folder = tmp_path / "state"
    first, again = deployment_secrets(None, folder), deployment_secrets(None, folder)
    assert (first.made, again.made) == (True, False)
    assert first.secrets == again.secrets
    assert [len(secret) for secret in first.secrets] == [32]
    assert stat.S_IMODE((folder / "ledger.key").stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert deployment_secrets(None, tmp_path / "other").secrets != first.secrets


def test_processes_that_start_together_have_one_secret(tmp_path: Path) -> None:
    """One of them makes it, and no draft is left."""
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: deployment_secrets(None, tmp_path), range(32)))
    assert len({secret for each in found for secret in each.secrets}) == 1
    assert sum(each.made for each in found) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["ledger.key"]


def test_a_folder_that_cannot_be_made_is_an_error_with_its_path(tmp_path: Path) -> None:
    """It says what is kept there."""
    blocked = written(tmp_path, b"a file") / "state"
    with pytest.raises(KeyFileError, match="the secret for creates is kept there"):
        deployment_secrets(None, blocked)
