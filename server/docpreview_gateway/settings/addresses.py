"""Addresses that servers of one gateway cannot have at the same time."""

from __future__ import annotations

import ipaddress
from itertools import combinations
from typing import TYPE_CHECKING

from docpreview_gateway.settings.sections import host_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


_LOOPBACK = "127.0.0.1"


def port_mistakes(addresses: Mapping[str, str]) -> Iterator[str]:
    """Problems: two settings, by their paths, name one port of this machine. Port 0 takes a free one."""
    for (first, one), (second, other) in combinations(addresses.items(), 2):
        if _overlap(one, other):
            port = host_port(other)[1]
            yield f"{second}: has the port of {first}, {port}; give it one of its own, such as {_free(port, addresses)}"


def _overlap(one: str, other: str) -> bool:
    (host, port), (other_host, other_port) = host_port(one), host_port(other)
    if port != other_port or port == 0:
        return False
    host, other_host = (_LOOPBACK if each == "localhost" else each for each in (host, other_host))
    return host == other_host or _covers(host, other_host) or _covers(other_host, host)


def _covers(every: str, host: str) -> bool:
    """Whether an address is that of all interfaces, the host's among them. `::` has those of IPv4 too."""
    try:
        address = ipaddress.ip_address(every)
        return address.is_unspecified and (address.version == 6 or ipaddress.ip_address(host).version == 4)  # noqa: PLR2004 - versions of IP
    except ValueError:
        return every in {"0.0.0.0", "::"}  # noqa: S104 - compared, not listened on


def _free(port: int, addresses: Mapping[str, str]) -> int:
    taken = {host_port(address)[1] for address in addresses.values()}
    return next(each for each in range(port + 1, port + 1 + 2 * len(taken)) if each not in taken)
