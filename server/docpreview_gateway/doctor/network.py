"""Name resolution and TLS certificates, by the standard library."""

from __future__ import annotations

import asyncio
import socket
import ssl
from typing import TYPE_CHECKING

from docpreview_gateway.doctor.diagnosis import NetworkError
from docpreview_gateway.upstream import causes
from docpreview_gateway.upstream.http_pool import Names, Origin
from docpreview_gateway.upstream.http_proxy import open_socket

if TYPE_CHECKING:
    from docpreview_gateway.upstream.http_proxy import Proxy


class SystemNetwork:
    """`Network` by this machine's resolver and trusted authorities. `tls_ports` has the TLS ports, by host.

    With a proxy certificates are those in its tunnels.
    """

    def __init__(self, tls_ports: dict[str, int], proxy: Proxy | None = None) -> None:
        self._tls_ports = tls_ports
        self._proxy = proxy

    async def addresses(self, host: str) -> list[str]:
        """The addresses of a host."""
        try:
            found = await asyncio.get_running_loop().getaddrinfo(host, None, type=socket.SOCK_STREAM)
        except OSError as error:
            raise NetworkError(f"the name does not resolve: {error.strerror}") from None
        except UnicodeError:
            raise NetworkError("it is no host name: each of its parts has 1 to 63 characters") from None
        return sorted({str(address[0]) for *_, address in found})

    async def certificate_end(self, host: str) -> float | None:
        """When the host's certificate expires, in Unix seconds; None without a TLS port."""
        port = self._tls_ports.get(host)
        if port is None:
            return None
        try:
            sock = await open_socket(Names(), Origin("https", host, port), self._proxy)
            try:
                trusted = ssl.create_default_context()
                _, writer = await asyncio.open_connection(sock=sock, ssl=trusted, server_hostname=host)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise NetworkError(f"no connection to port {port}: {causes.of_connecting(error)}") from error
        try:
            certificate = writer.get_extra_info("peercert")
            return float(ssl.cert_time_to_seconds(certificate["notAfter"]))
        finally:
            writer.transport.abort()
