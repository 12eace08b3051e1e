"""What queues have to tell a deployment, and what is said of those that tell something else."""

from __future__ import annotations

import pytest

from docpreview_gateway.callbacks.queue_addresses import QueueAddresses
from docpreview_gateway.callbacks.tokens import CallbackTokens
from docpreview_gateway.upstream.wire.queue_notices import NotifyConfig

OLD, NEW = b"o" * 32, b"n" * 32
BUCKET, BASE = "docs-1250000000", "https://previews.example.com/callback"


def addresses(*secrets: bytes, base: str = BASE) -> QueueAddresses:
    return QueueAddresses(base, CallbackTokens(secrets, "previews"))


def test_a_queue_has_to_tell_an_address_of_at_most_100_characters_in_json() -> None:
    """The base may have 77."""
    base = "https://previews.example.com/" + "c" * 48
    wanted = addresses(NEW, base=f"{base}/").wanted(BUCKET)
    assert wanted.url.startswith(f"{base}/")
    assert len(wanted.url) == 100
    assert (wanted.state, wanted.kind, wanted.event, wanted.result_format) == ("On", "Url", "TaskFinish", "JSON")


@pytest.mark.parametrize(
    ("notify", "standing", "shown"),
    [
        (NotifyConfig(), "off", "nobody"),
        (NotifyConfig("https://x.example.com/a", "Off", "Url"), "off", "nobody"),
        (addresses(NEW).wanted(BUCKET), "wanted", f"{BASE}/<token>, as JSON"),
        (addresses(OLD).wanted(BUCKET), "outdated", f"{BASE}/<token>, as JSON"),
        (addresses(b"x" * 32).wanted(BUCKET), "outdated", f"{BASE}/<token>, as JSON"),
        (
            addresses(NEW, base="https://o.example.com").wanted(BUCKET),
            "outdated",
            "https://o.example.com/<token>, as JSON",
        ),
        (NotifyConfig("https://x.example.com/secret?k=secret", "on"), "foreign", "another receiver, at x.example.com"),
        (NotifyConfig("http://[secret", "On"), "foreign", "another receiver"),
        (NotifyConfig("", "On", "TDMQ"), "foreign", "a message queue (TDMQ)"),
    ],
)
def test_whom_a_queue_tells_is_known_and_said_without_a_token(notify: NotifyConfig, standing: str, shown: str) -> None:
    """An address of somebody else may be as secret as ours: its host is said."""
    ours = addresses(NEW, OLD)
    assert (ours.standing(BUCKET, notify), ours.shown(BUCKET, notify)) == (standing, shown)


def test_the_address_of_another_bucket_is_not_the_wanted_one() -> None:
    assert addresses(NEW).standing(BUCKET, addresses(NEW).wanted("archive-1250000000")) == "outdated"
