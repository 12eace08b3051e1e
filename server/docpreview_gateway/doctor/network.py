"""Name resolution and TLS certificates, by the standard library."""

from __future__ import annotations

import asyncio
import socket
import ssl

from docpreview_gateway.doctor.diagnosis import NetworkError
from docpreview_gateway.upstream import causes


class SystemNetwork:
    """`Network` by this machine's resolver and trusted authorities. `tls_ports` has the TLS ports, by host."""

    def __init__(self, tls_ports: dict[str, int]) -> None:
        self._tls_ports = tls_ports

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
            _, writer = await asyncio.open_connection(host, port, ssl=ssl.create_default_context())
        except OSError as error:
            raise NetworkError(f"no connection to port {port}: {causes.of_connecting(error)}") from error
        try:
            certificate = writer.get_extra_info("peercert")
            return float(ssl.cert_time_to_seconds(certificate["notAfter"]))
        finally:
            writer.transport.abort()
