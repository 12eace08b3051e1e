"""Whether the gateway can listen on its addresses. What it has itself is as it should be."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from docpreview_gateway.doctor.health_probe import served_address
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.wiring.listening import address_problem

if TYPE_CHECKING:
    from collections.abc import Iterator

    from docpreview_gateway.settings.loading import Settings

PROBE_SECONDS = 2.0
"""Time limit of a look whether the port of this configuration is in use by a gateway."""

_ALL_INTERFACES = frozenset({"0.0.0.0", "[::]"})  # noqa: S104 - what others may have written


class Port(NamedTuple):
    """An address of the gateway: `problem` has why it cannot be listened on, empty for none."""

    setting: str
    result: str
    problem: str = ""
    in_use: bool = False


def ports(settings: Settings) -> Iterator[Port]:
    """Each address of the gateway.

    One in use is no problem while a gateway answers on `admin_listen` and says that `listen` is its own.
    """
    addresses = settings.addresses
    found = {name: address_problem(name, address) for name, address in addresses.items()}
    served = None
    if any(each is not None and each.in_use for each in found.values()):
        served = served_address(*host_port(settings.admin_listen), seconds=PROBE_SECONDS)
    for name, address in addresses.items():
        problem = found[name]
        if problem is None:
            yield Port(name, f"{address} is free")
        elif served is None or not problem.in_use:
            yield Port(name, "", problem.text, in_use=problem.in_use)
        elif _overlap(settings.listen, served):
            yield Port(name, f"{address} is in use by the gateway that answers on admin_listen", in_use=True)
        else:
            yield Port(name, "", f"{name} {address}: {_others(name, settings.listen, served)}", in_use=True)


def _others(name: str, listen: str, served: str) -> str:
    """Whose an address in use is when the gateway that answers on admin_listen has not `listen` but `served`."""
    if name == "listen":
        whose = f"the port is in use, and not by the gateway that answers on admin_listen, which listens on {served}"
        return f"{whose}; end the program that has it (`ss -ltnp` names it), or choose another port"
    whose = f"the port is in use by a gateway that listens on {served}, not on {listen}"
    return f"{whose}; start it again if it is to have this configuration, else choose another port"


def _overlap(one: str, other: str) -> bool:
    """Whether two addresses cannot both be listened on: the same port, and the same host or one of all interfaces."""
    (host, _, port), (other_host, _, other_port) = one.rpartition(":"), other.rpartition(":")
    return port == other_port and (host == other_host or not {host, other_host}.isdisjoint(_ALL_INTERFACES))
