"""Session: the context of a running command."""

from dataclasses import dataclass
from datetime import timedelta

from docpreview_client.cli.views import View
from docpreview_client.client import DocPreviewClient


@dataclass(frozen=True)
class Session:
    """An open client, the view, and the timeout of --timeout (None: the client's defaults)."""

    client: DocPreviewClient
    view: View
    timeout: timedelta | None
