"""Session: the context of a running command."""

from dataclasses import dataclass
from datetime import timedelta

from docpreview_client.cli.views import View
from docpreview_client.client import DocPreviewClient


@dataclass(frozen=True)
class Session:
    """An open client, the view, the timeout of --timeout (None: the defaults), and how the gateway is reached."""

    client: DocPreviewClient
    view: View
    timeout: timedelta | None
    connection: tuple[str, ...] = ()
    """The words of the command line that say which gateway is called, and how."""
