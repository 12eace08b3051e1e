"""Whether this machine can listen on an address, and if not why, in words for operators."""

from __future__ import annotations

import errno
import os
import socket
from typing import NamedTuple

from docpreview_gateway.settings.sections import host_port

_WORDS = {
    errno.EADDRINUSE: "the port is in use; end the program that has it (`ss -ltnp` names it), or choose another port",
    errno.EADDRNOTAVAIL: "this machine does not have the address; 0.0.0.0 stands for all that it has",
    errno.EACCES: "this user may not listen on a port below 1024; choose a higher one, such as 50051",
}


class AddressProblem(NamedTuple):
    """Why an address cannot be listened on. `in_use`: another program does, perhaps the gateway itself."""

    text: str
    in_use: bool = False


def address_problem(setting: str, address: str) -> AddressProblem | None:
    """Bind to the address, and let it go again. None when that works."""
    host, port = host_port(address)
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except OSError:
        text = f"{setting} {address}: the host name does not resolve; write an IP address, such as 127.0.0.1:{port}"
        return AddressProblem(text)
    problems = [_problem(setting, address, family, place) for family, *_, place in found]
    in_use = next((each for each in problems if each is not None and each.in_use), None)
    # A name may have addresses that this machine lacks, such as ::1: servers listen on the others.
    return in_use or (problems[0] if all(problems) else None)


def _problem(setting: str, address: str, family: int, place: object) -> AddressProblem | None:
    try:
        _bind(family, place)
    except OSError as error:
        code = error.errno or 0
        words = _WORDS.get(code, f"cannot be listened on: {os.strerror(code)}")
        return AddressProblem(f"{setting} {address}: {words}", in_use=code == errno.EADDRINUSE)
    return None


def why_not(setting: str, address: str) -> str:
    """Why a server could not listen on an address just now."""
    found = address_problem(setting, address)
    return f"{setting} {address}: cannot be listened on; start again" if found is None else found.text


def _bind(family: int, place: object) -> None:
    with socket.socket(family) as probe:
        # As servers do: connections that ended a moment ago are in nobody's way, and others' listeners are.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind(place)  # type: ignore[arg-type]  # as the resolver gave it
        probe.listen(1)
