# noqa: INP001 - a folder of the path, not a package
"""Imported by gateways with this folder on their path: a minute of the intervals that no setting has is a second.

The alert rules of the test are shortened in the same way.
"""

from docpreview_gateway.wiring import creates, gateway

MINUTE = 60

creates.FIRST_RECONCILIATION /= MINUTE
creates.DAY_SECONDS = creates.FIRST_RECONCILIATION  # a day would still be 24 minutes
creates.HEALTH_SECONDS /= MINUTE
gateway.KEYS_SECONDS /= MINUTE
creates.PAGES_SECONDS /= MINUTE
