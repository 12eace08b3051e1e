"""Cloud keys in files, which another process may rotate."""

from __future__ import annotations

import re
from difflib import get_close_matches
from typing import TYPE_CHECKING

import yaml

from docpreview_gateway.model import strict_yaml
from docpreview_gateway.upstream.wire.signing import Credentials

if TYPE_CHECKING:
    from pathlib import Path

_FIELDS = ("secret_id", "secret_key", "token")
MAP = "must be a map of secret_id, secret_key and, if there is one, token"
_NAME = re.compile("[A-Za-z_]{1,20}")
"""Names of keys. Ids and secrets of the cloud are longer, and have digits."""


class CredentialFileError(Exception):
    """A file has no usable keys. The message says why, and contains no value of the file."""


def load_credentials(path: Path) -> Credentials:
    """The keys in a YAML or JSON map of `secret_id`, `secret_key` and, for temporary keys, `token`."""
    try:
        found = strict_yaml.parse(path.read_bytes())
    except OSError as error:
        raise CredentialFileError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        why = strict_yaml.mistake(error) or "must be YAML or JSON in UTF-8"
        raise CredentialFileError(f"{path}: {why}") from None
    problem = "" if isinstance(found, dict) else MAP
    problem = problem or next((text for each in found if (text := _unknown(each))), "")
    problem = problem or next((text for name in _FIELDS if (text := _mistake(name, found.get(name)))), "")
    if problem:
        raise CredentialFileError(f"{path}: {problem}")
    return Credentials(found["secret_id"], found["secret_key"], found.get("token") or "")


def _unknown(key: object) -> str:
    """What is wrong with a key of the map. Only what cannot be one of the cloud's keys is quoted."""
    if key in _FIELDS:
        return ""
    if not isinstance(key, str) or not _NAME.fullmatch(key):
        return f"has an unknown key; it {MAP}"
    nearest = get_close_matches(key.lower(), _FIELDS, n=1)
    return f"{key}: unknown key; " + (f"did you mean `{nearest[0]}`?" if nearest else f"the file {MAP}")


def _mistake(name: str, value: object) -> str:
    if value is None or value == "":
        return "" if name == "token" else f"{name}: is missing or empty; the file {MAP}"
    if not isinstance(value, str):
        return f"{name}: must be text in quotes"
    if not (value.isascii() and value.isprintable()):
        return f"{name}: must be printable ASCII characters, without a line break"
    return ""
