"""Files with the secrets of webhook targets. They come and go apart from the policy, as Secrets from ConfigMaps."""

from __future__ import annotations

import stat
from typing import TYPE_CHECKING

from docpreview_gateway.model.webhooks import SecretsError, parse_secrets

if TYPE_CHECKING:
    from pathlib import Path

MOST_BYTES = 4096


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """The one or two secrets of a file, as `parse_secrets` has them. SecretsError says why there are none."""
    try:
        found = path.stat()
        # Opening a pipe would wait for whoever writes into it.
        if not stat.S_ISREG(found.st_mode):
            raise SecretsError("is no regular file")
        if found.st_size > MOST_BYTES:
            raise SecretsError(f"has more than {MOST_BYTES} bytes, which no two secrets have")
        return parse_secrets(path.read_text("ascii"))
    except OSError as error:
        raise SecretsError((error.strerror or type(error).__name__).lower()) from None
    except UnicodeDecodeError:
        raise SecretsError("must be a text file with secrets such as whsec_...") from None


def unusable(path: Path) -> str:
    """Why a file has no usable secrets; empty: it has."""
    try:
        read_secrets(path)
    except SecretsError as error:
        return str(error)
    return ""
