"""Cloud keys in files, which another process may rotate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import yaml

from docpreview_gateway.model import strict_yaml
from docpreview_gateway.upstream.wire.signing import Credentials

if TYPE_CHECKING:
    from pathlib import Path

_FIELDS = {"secret_id", "secret_key"}
_OPTIONAL = {"token"}


class CredentialFileError(Exception):
    """A file has no usable keys. The message contains no part of the file."""


def load_credentials(path: Path) -> Credentials:
    """The keys in a YAML or JSON map of `secret_id`, `secret_key` and, for temporary keys, `token`."""
    try:
        found = strict_yaml.parse(path.read_bytes())
    except OSError as error:
        raise CredentialFileError(f"{path}: {error.strerror}") from None
    except (yaml.YAMLError, ValueError) as error:
        why = strict_yaml.mistake(error) or "must be YAML or JSON in UTF-8"
        raise CredentialFileError(f"{path}: {why}") from None
    if not isinstance(found, dict) or not found.keys() >= _FIELDS or not found.keys() <= _FIELDS | _OPTIONAL:
        raise CredentialFileError(f"{path}: must be a map of secret_id, secret_key and, if there is one, token")
    values = {name: value for name, value in found.items() if value is not None}
    if not all(isinstance(value, str) and value.isascii() and value.isprintable() for value in values.values()):
        raise CredentialFileError(f"{path}: every value must be a text of printable ASCII characters")
    if not values.get("secret_id") or not values.get("secret_key"):
        raise CredentialFileError(f"{path}: secret_id and secret_key must not be empty")
    return Credentials(values["secret_id"], values["secret_key"], values.get("token", ""))
