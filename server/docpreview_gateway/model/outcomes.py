"""Outcomes of calls, for audits."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from docpreview.v1.error_reason_pb2 import ErrorReason
from docpreview_gateway.model.errors import GatewayError, NotPermitted, UpstreamError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from docpreview_gateway.model.call import Call, ResponseInfo


def note(error: Exception, response: ResponseInfo) -> None:
    """Note what the log of a call tells of its error: the rule that refused it, the cloud's id of the failed request.

    That request may have been made for another call whose read or create this one has joined.
    """
    if isinstance(error, NotPermitted):
        response.rule = error.rule
    if isinstance(error, UpstreamError) and error.facts.request_id:
        response.upstream_request_id = error.facts.request_id


@contextmanager
def audited(call: Call, tell: Callable[[str], None]) -> Iterator[None]:
    """Tell the outcome of the work within, once: OK, CANCELLED, the reason of an error, or INTERNAL for any other."""
    outcome = "CANCELLED"
    try:
        yield
        outcome = "OK"
    except GatewayError as error:
        note(error, call.response)
        outcome = ErrorReason.Name(error.reason).removeprefix("ERROR_REASON_")
        raise
    except Exception:
        outcome = "INTERNAL"
        raise
    finally:
        tell(outcome)
