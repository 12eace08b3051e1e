"""Whether the gateway can listen on its addresses. What it has itself is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.doctor.health_probe import is_gateway
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.wiring.listening import address_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docpreview_gateway.settings.loading import Settings

PROBE_SECONDS = 2.0
"""Time limit of a look whether the port of this configuration is in use by a gateway."""


class Port(NamedTuple):
    """An address of the gateway: `problem` has why it cannot be listened on, empty for none."""

    setting: str
    result: str
    problem: str = ""
    in_use: bool = False


def ports(settings: Settings) -> Iterator[Port]:
    """Each address of the gateway. One that is in use is no problem while a gateway answers on `admin_listen`."""
    host, port = host_port(settings.admin_listen)
    runs: bool | None = None
    for name, address in (("listen", settings.listen), ("admin_listen", settings.admin_listen)):
        found = address_problem(name, address)
        if found is not None and found.in_use and runs is None:
            runs = is_gateway(host, port, seconds=PROBE_SECONDS)
        if found is None:
            yield Port(name, f"{address} is free")
        elif found.in_use and runs:
            yield Port(name, f"{address} is in use, and a gateway answers on admin_listen", in_use=True)
        else:
            yield Port(name, "", found.text, in_use=found.in_use)
