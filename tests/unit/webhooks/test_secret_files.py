"""Files with the secrets of webhook targets."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.webhooks.secret_files import MOST_BYTES, read_secrets, unusable

if TYPE_CHECKING:
    from pathlib import Path

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


def test_a_file_has_a_secret_or_two(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    for count in (1, 2):
        path.write_text(f"{SECRET}\n" * count)
        assert (len(read_secrets(path)), unusable(path)) == (count, "")


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "one line"),
        (b"oops-a-secret", "each line must be whsec_"),
        (b"whsec_c2hvcnQ=", "each line must be whsec_"),
        (b"\xff\xfe", "must be a text file"),
        (b"x" * (MOST_BYTES + 1), "more than"),
    ],
)
def test_what_is_no_secret_is_refused_without_being_quoted(tmp_path: Path, content: bytes, why: str) -> None:
    path = tmp_path / "secret"
    path.write_bytes(content)
    found = unusable(path)
    assert why in found
    assert not content or content.decode("latin-1") not in found


def test_a_file_that_is_not_there_or_would_keep_a_reader_waiting_is_refused_at_once(tmp_path: Path) -> None:
    assert "no such file" in unusable(tmp_path / "missing")
    assert unusable(tmp_path) == "is no regular file"
    os.mkfifo(tmp_path / "pipe")
    assert unusable(tmp_path / "pipe") == "is no regular file"
