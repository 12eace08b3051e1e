"""Outcomes of calls, for audits."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.errors import GatewayError, NotPermitted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docpreview_gateway.model.call import Call


@contextmanager
def audited(call: Call, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell the outcome of the work within, once: OK, CANCELLED, the reason of an error, or INTERNAL for any other."""
    outcome = "CANCELLED"
    try:
        yield
        outcome = "OK"
    except GatewayError as error:
        if isinstance(error, NotPermitted):
            call.response.rule = error.rule
        outcome = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
        raise
    except Exception:
        outcome = "INTERNAL"
        raise
    finally:
        tell(outcome)
