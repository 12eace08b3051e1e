"""What goes with one call: its deadline, its metadata, and where the reply's metadata goes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any, Self, TypedDict

from docpreview_client.deadline import Deadline
from docpreview_client.spans import Span


class CallFields(TypedDict, total=False):
    """Optional arguments of every call.

    Keys:
        timeout: Deadline of the call with all its retries: seconds, or a timedelta. The default is the method's, of
            `Deadlines`.
        no_cache: Whether all caches are bypassed, and with a create the deduplication of the gateway's policy.
        metadata: Further metadata of this call, such as `x-request-id`.
        reply_metadata: A dict that is filled in with the reply's metadata: `x-request-id`, and `x-cache` where the
            gateway tells it. Also when the call fails.
    """

    timeout: Span | None
    no_cache: bool
    metadata: Mapping[str, str]
    reply_metadata: dict[str, str]


def refuse_unknown(fields: CallFields, kind: type[CallFields]) -> None:
    """Refuses arguments that the kind does not have.

    Raises:
        TypeError: There is one. The text has the nearest name that there is.
    """
    known = sorted(kind.__annotations__)
    unknown = [name for name in fields if name not in kind.__annotations__]
    if unknown:
        near = {name: get_close_matches(name, known, 1) for name in unknown}
        named = [f"{name!r}" + (f" (did you mean {near[name][0]!r}?)" if near[name] else "") for name in unknown]
        raise TypeError(f"unexpected keyword argument {', '.join(named)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """One call in the client."""

    deadline: Deadline
    metadata: Mapping[str, str]
    reply_metadata: dict[str, str] | None = None

    @classmethod
    def of(cls, fields: CallFields, *, default: Span, kind: type[CallFields] = CallFields) -> Self:
        """The call that `fields`, which are of this kind, describe, with `default` as its timeout.

        Raises:
            TypeError: There is a field that the kind does not have.
        """
        refuse_unknown(fields, kind)
        timeout = fields.get("timeout")
        caching = {"cache-control": "no-cache"} if fields.get("no_cache") else {}
        return cls(
            deadline=Deadline.after(default if timeout is None else timeout),
            metadata={**caching, **fields.get("metadata", {})},
            reply_metadata=fields.get("reply_metadata"),
        )

    def at_most(self, span: Span) -> Self:
        """The call as a part of this one that may last so long."""
        return replace(self, deadline=self.deadline.at_most(span))

    def lasting(self, span: Span) -> Self:
        """The call as a part of this one with a deadline of its own."""
        return replace(self, deadline=Deadline.after(span))

    def received(self, *metadata: Iterable[tuple[str, Any]] | None) -> None:
        """Takes the reply's metadata; values that are bytes are left out."""
        if self.reply_metadata is not None:
            pairs = [pair for part in metadata for pair in part or ()]
            self.reply_metadata.update((key, value) for key, value in pairs if isinstance(value, str))
