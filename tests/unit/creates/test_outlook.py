"""What a process says of the end of a loss."""

from __future__ import annotations

import pytest

from docpreview_gateway.creates.outlook import Outlook, spoken

DAY = 86400.0
PRICE = "a repeated request_id may then make, and bill, a second job"
REBUILD = Outlook("rebuild", 225.0, DAY)


def test_a_rebuild_in_a_cloud_that_shows_markers_ends_after_the_quarantine() -> None:
    """Nothing is said of another end, as there is none."""
    assert REBUILD.words(25.0, shows_markers=True) == (
        "they are read back from the cloud's lists in 3 min at the earliest"
    )


@pytest.mark.parametrize("waited", [0.0, 3600.0])
def test_where_no_list_has_shown_a_marker_the_end_that_a_cloud_without_echo_has_is_named(waited: float) -> None:
    text = REBUILD.words(waited, shows_markers=False)
    assert f"in {spoken(DAY - waited)} (ledger.retention_seconds" in text
    assert text.endswith(f"or after `docpreview-gateway store accept-loss` ({PRICE})")


def test_a_rebuild_that_is_overdue_promises_no_time() -> None:
    text = REBUILD.words(226.0, shows_markers=True)
    assert "could not be read back" in text
    assert "the log says why" in text
    assert "at the earliest" not in text


def test_a_loss_that_is_not_rebuilt_says_what_ends_it() -> None:
    refused = Outlook("refuse", 225.0, DAY).words(9, shows_markers=True)
    assert refused == f"only `docpreview-gateway store accept-loss` ({PRICE}) ends that (ledger.on_loss: refuse)"
    assert "within seconds" in Outlook("accept", 225.0, DAY).words(9, shows_markers=False)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "1 s"), (0, "1 s"), (119, "119 s"), (120, "2 min"), (7199, "120 min"), (7200, "2 h"), (25 * DAY, "600 h")],
)
def test_a_duration_is_told_in_a_unit_that_fits(seconds: float, text: str) -> None:
    assert spoken(seconds) == text
