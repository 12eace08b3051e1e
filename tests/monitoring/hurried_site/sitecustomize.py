# noqa: INP001 - a folder of the path, not a package
"""Imported by gateways with this folder on their path: a minute of the intervals that no setting has is a second.

The alert rules of the test are shortened in the same way.
"""

from docpreview_gateway.wiring import creates, gateway

MINUTE = 60

for _module, _name in (
    (creates, "FIRST_RECONCILIATION"),
    (creates, "HEALTH_SECONDS"),
    (creates, "PAGES_SECONDS"),
    (gateway, "KEYS_SECONDS"),
):
    setattr(_module, _name, getattr(_module, _name) / MINUTE)
creates.DAY_SECONDS = creates.FIRST_RECONCILIATION  # type: ignore[attr-defined]  # a day would still be 24 minutes
