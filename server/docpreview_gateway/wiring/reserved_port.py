"""A port that only this gateway's own sockets can listen on, several of them at a time."""

from __future__ import annotations

import socket
import sys

from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.settings.sections import host_port
from docpreview_gateway.wiring.listening import why_not

CAN_SHARE = sys.platform == "linux"
"""Whether sockets of a user can share a port, and others' cannot take it meanwhile."""

NO_SHARING = "workers: more than one need Linux, where processes can share a port"


def reserved_port(setting: str, listen: str) -> socket.socket:
    """A socket that reserves the setting's port and does not listen itself. StartError when the address cannot be used.

    It is bound before it is made sharable: so binding fails when another server has the port, even one that shares it,
    and other users' servers cannot take it while the socket is open.
    """
    host, port = host_port(listen)
    reserved = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if reserved.family == socket.AF_INET6:
            reserved.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        reserved.bind((host, port))
        reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    except OSError as error:
        reserved.close()
        raise StartError(why_not(setting, listen)) from error
    return reserved


def at_port(listen: str, reserved: socket.socket) -> str:
    """The address `listen` with the number of the reserved port, which differs when that of `listen` is 0."""
    return f"{listen.rpartition(':')[0]}:{reserved.getsockname()[1]}"
