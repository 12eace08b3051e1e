"""Deliveries: one event for one target, from the create that asked for it until the target has it.

A delivery waits for the end of its job first, which somebody has to look for; then it has its `body`, which no longer
changes, and is sent until the target takes it or a day has passed.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol

from docpreview_gateway.creates.keys import MAC_BYTES, CreateKeys

if TYPE_CHECKING:
    from collections.abc import Sequence

_KID_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery. Times are Unix seconds by the clock of the process that set them.

    `lease` is the number of times that it was taken: only who took it last may change it.
    """

    id: str
    target: str
    caller: str
    bucket: str
    job_id: str
    promised_at: float
    body: str = ""
    ended_at: float = 0.0
    attempts: int = 0
    lease: int = 0


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A stored delivery that this process cannot read, and `why`: of another secret, damaged, or of a newer version."""

    id: str
    promised_at: float
    lease: int
    why: str


class Depth(NamedTuple):
    """What a queue holds: deliveries whose jobs run, those whose jobs have ended, and the oldest of these ends."""

    waiting: int
    undelivered: int
    oldest_ended_at: float | None


class DeliveryQueue(Protocol):
    """A durable queue, shared by all processes of a deployment. StoreError from every method.

    Delays are in seconds, by the store's own clock: those of replicas may differ.
    """

    async def put(self, delivery: Delivery, delay: float) -> None:
        """Keep a delivery that is due after `delay`; nothing if there is one of its id."""
        ...

    async def take(self, count: int, lease_seconds: float) -> list[Delivery | Unreadable]:
        """Up to `count` deliveries that are due, the longest due first. Nobody else gets them for `lease_seconds`."""
        ...

    async def replace(self, delivery: Delivery, delay: float) -> bool:
        """Keep this in place of the delivery that was taken, due after `delay`; False: it is somebody else's by now."""
        ...

    async def put_off(self, delivery: Delivery | Unreadable, delay: float) -> bool:
        """Have a delivery that was taken due after `delay`, unchanged; False: it is somebody else's by now."""
        ...

    async def remove(self, delivery: Delivery | Unreadable) -> bool:
        """Forget a delivery that was taken; False: it is somebody else's by now."""
        ...

    async def hasten(self, ids: Sequence[str]) -> None:
        """Make those of the deliveries due at once that wait for the ends of their jobs."""
        ...

    async def depth(self) -> Depth:
        """What the queue holds."""
        ...


class DamagedDeliveryError(Exception):
    """A stored delivery that was not written by this deployment, or is damaged."""


def packed(delivery: Delivery, keys: CreateKeys) -> bytes:
    """The delivery as a store keeps it. A MAC is before it: whoever may write to the store has no event signed so."""
    text = json.dumps(asdict(delivery), separators=(",", ":")).encode()
    return keys.id.encode() + keys.mac(_signed(text, keys), keys.id) + text


def unpacked(stored: bytes, lease: int, keys: CreateKeys) -> Delivery:
    """The delivery that `packed` made, with its lease. DamagedDeliveryError for any other bytes."""
    kid, mac, text = (
        stored[:_KID_LENGTH],
        stored[_KID_LENGTH : _KID_LENGTH + MAC_BYTES],
        stored[_KID_LENGTH + MAC_BYTES :],
    )
    try:
        if not hmac.compare_digest(mac, keys.mac(_signed(text, keys), kid.decode())):
            raise DamagedDeliveryError("its MAC does not match")
        return Delivery(**{**json.loads(text), "lease": lease})
    except KeyError as error:
        raise DamagedDeliveryError("it was made with a secret that is not in ledger.key_file") from error
    except (ValueError, TypeError) as error:
        raise DamagedDeliveryError("it cannot be read by this version") from error


def read(name: str, lease: int, promised_at: float, stored: bytes, keys: CreateKeys) -> Delivery | Unreadable:
    """A delivery as a store has it, whether it can be read or not."""
    try:
        return unpacked(stored, lease, keys)
    except DamagedDeliveryError as error:
        return Unreadable(name, promised_at, lease, str(error))


def _signed(text: bytes, keys: CreateKeys) -> bytes:
    return b"webhook\n" + keys.namespace.encode() + b"\n" + text
