"""Names of the files in the state directory."""

from __future__ import annotations

STORE_FILE = "creates.db"
"""The store of creates, without shared state."""

WEBHOOKS_FILE = "webhooks.db"
"""The queue of webhook deliveries, without shared state."""

STORE_MEMORY = "store.json"
"""What this machine knows of the store."""

BROKEN_STORE = (
    "the gateway records creates and page leases there: let its user write the folder and the file, or restore the "
    "file from a backup"
)
"""What to do about a file that cannot be used."""


def journal_file(worker: str) -> str:
    """The journal of page leases of a worker; empty: of the only process."""
    return f"journal-{worker}.db" if worker else "journal.db"
