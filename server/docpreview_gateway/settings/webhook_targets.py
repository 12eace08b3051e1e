"""The part of a policy file about a target of webhooks."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003 - pydantic reads the annotations
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, field_validator

from docpreview_gateway.model.webhooks import SecretsError, parse_secrets
from docpreview_gateway.settings.limits import Section


def _webhook_url(value: str) -> str:
    what = "must be an address such as https://orders.example.com/previews, without user and fragment"
    try:
        parts = urlsplit(value)
        host, _ = (parts.hostname or "").encode("idna"), parts.port
    except ValueError:  # also of a port or a name that cannot be
        raise ValueError(what) from None
    if parts.username or parts.password or parts.fragment or not host:
        raise ValueError(what)
    if parts.scheme != "https" and not (parts.scheme == "http" and parts.hostname in _LOOPBACK):
        raise ValueError("must begin with https://; http:// is for a receiver on this machine, such as 127.0.0.1")
    return value


_LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})

WebhookUrl = Annotated[str, AfterValidator(_webhook_url)]


class WebhookPart(Section):
    """A target of webhooks: its address, and the file with the secrets that sign what it gets."""

    url: WebhookUrl
    secret_file: Path

    @field_validator("secret_file")
    @classmethod
    def _usable(cls, path: Path) -> Path:
        try:
            parse_secrets(path.read_text("ascii"))
        except OSError as error:
            raise ValueError(f"{path}: {error.strerror or type(error).__name__}") from None
        except UnicodeDecodeError:
            raise ValueError(f"{path}: must be a text file with secrets such as whsec_...") from None
        except SecretsError as error:
            raise ValueError(f"{path}: {error}") from None
        return path
