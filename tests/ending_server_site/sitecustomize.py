# noqa: INP001 - a folder of the path, not a package
"""Imported by Python processes with this folder on their path: a call of an unknown method ends the gateway's server.

No request is known that does; this one stands for it.
"""

from docpreview_gateway.rpc.listener import Listener


def _fail(self: Listener, peer: str) -> None:  # noqa: ARG001 - as what it replaces
    raise OSError("the server ends here")


Listener.on_unknown = _fail  # type: ignore[method-assign]
