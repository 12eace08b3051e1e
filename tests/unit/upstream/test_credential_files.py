"""Files with keys of the cloud: what is wrong with one is told with the name of its key, and without its value."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from docpreview_gateway.upstream.credential_files import CredentialFileError, load_credentials
from docpreview_gateway.upstream.wire.signing import Credentials

if TYPE_CHECKING:
    from pathlib import Path

CANARY = "CANARY31337"
MAP = "must be a map of secret_id, secret_key and, if there is one, token"


def load(folder: Path, text: str) -> Credentials:
    path = folder / "cloud-keys.yaml"
    path.write_text(text)
    return load_credentials(path)


@pytest.mark.parametrize(
    ("text", "token"),
    [
        ("secret_id: a\nsecret_key: b\n", ""),
        ("secret_id: a\nsecret_key: b\ntoken:\n", ""),
        ('{"secret_id": "a", "secret_key": "b", "token": "c"}', "c"),
    ],
)
def test_a_file_has_two_keys_and_a_token_if_there_is_one(tmp_path: Path, text: str, token: str) -> None:
    """In YAML or JSON."""
    assert load(tmp_path, text) == Credentials("a", "b", token)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("secret_id: a\nsecret_key: 31337\n", "secret_key: must be text in quotes"),
        ("secret_id: true\nsecret_key: b\n", "secret_id: must be text in quotes"),
        (f"secret_id: [{CANARY}]\nsecret_key: b\n", "secret_id: must be text in quotes"),
        (
            f"secret_id: a\nsecret_key: {CANARY}é\n",
            "secret_key: must be printable ASCII characters, without a line break",
        ),
        (f"secret_id: a\nsecret_key: b\ntoken: |\n  {CANARY}\n", "token: must be printable ASCII characters, without"),
        (f"secret_id: {CANARY}\n", f"secret_key: is missing or empty; the file {MAP}"),
        (f"secret_id: ''\nsecret_key: {CANARY}\n", f"secret_id: is missing or empty; the file {MAP}"),
        (f"secret_id: a\nsecret_key: b\ntokn: {CANARY}\n", "tokn: unknown key; did you mean `token`?"),
        (f"SecretId: {CANARY}\nSecretKey: b\n", "SecretId: unknown key; did you mean `secret_id`?"),
        (f"secret_id: a\nsecret_key: b\nregion: {CANARY}\n", f"region: unknown key; the file {MAP}"),
        (f"{CANARY}: b\n", f"has an unknown key; it {MAP}"),
        ("5: b\n", f"has an unknown key; it {MAP}"),
        (f"- {CANARY}\n", MAP),
        ("", MAP),
    ],
)
def test_a_mistake_is_told_with_its_key_and_without_a_value(tmp_path: Path, text: str, problem: str) -> None:
    """A key that may be one of the cloud's, in a wrong place, is not told either."""
    with pytest.raises(CredentialFileError) as caught:
        load(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'cloud-keys.yaml'}: {problem}")
    assert "31337" not in str(caught.value).removeprefix(str(tmp_path))
