"""Whether callbacks come is learned from which came first: the callback or a poll."""

from __future__ import annotations

import pytest

from docpreview_gateway.callbacks.trust import ENDS, GRACE_SECONDS, HOUR, LEAST, Trust


class Scene:
    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[tuple[str, bool]] = []
        self.ends: list[bool] = []
        self.trust = Trust(lambda: self.now, self)

    def working(self, bucket: str, works: bool) -> None:  # noqa: FBT001 - as the port
        self.told.append((bucket, works))

    def found(self, _bucket: str, *, by_callback: bool) -> None:
        self.ends.append(by_callback)

    def come(self, count: int) -> None:
        for number in range(count):
            self.trust.called_back("docs", f"c{number}")

    def miss(self, count: int) -> None:
        for number in range(count):
            self.trust.polled("docs", f"m{number}")
        self.now += GRACE_SECONDS


def test_callbacks_are_relied_upon_once_several_have_come_and_only_for_their_bucket() -> None:
    scene = Scene()
    scene.come(LEAST - 1)
    assert not scene.trust.works("docs")
    scene.come(1)
    assert scene.trust.works("docs")
    assert not scene.trust.works("others")
    assert scene.told == [("docs", True)]


@pytest.mark.parametrize(("misses", "works"), [(2, True), (3, False)])
def test_they_are_not_relied_upon_any_more_when_polls_find_ends_first(*, misses: int, works: bool) -> None:
    """More than a tenth of the last ends."""
    scene = Scene()
    scene.come(ENDS)
    scene.miss(misses)
    assert scene.trust.works("docs") == works


def test_a_callback_that_comes_a_moment_after_a_poll_has_come() -> None:
    scene = Scene()
    scene.come(ENDS)
    for number in range(ENDS):
        scene.trust.polled("docs", f"late{number}")
        scene.trust.came_late("docs", f"late{number}")
    scene.now += GRACE_SECONDS
    assert scene.trust.works("docs")
    assert scene.ends == [True] * 2 * ENDS


def test_what_was_learned_an_hour_ago_says_nothing() -> None:
    """The way of callbacks may have changed since."""
    scene = Scene()
    scene.come(ENDS)
    assert scene.trust.works("docs")
    scene.now += HOUR + 1
    assert not scene.trust.works("docs")
    assert scene.told == [("docs", True), ("docs", False)]


def test_what_another_replica_was_called_back_about_teaches_and_is_counted_there() -> None:
    """Sums over replicas have each end once."""
    scene = Scene()
    scene.trust.polled("docs", "e0")
    for number in range(LEAST):
        scene.trust.called_back_elsewhere("docs", f"e{number}")
    scene.now += GRACE_SECONDS
    assert scene.trust.works("docs")
    assert scene.ends == []


def test_what_several_replicas_were_called_back_about_teaches_once() -> None:
    """Of a callback that came twice, or of a job that this one was called back about too."""
    scene = Scene()
    scene.come(1)
    for _ in range(LEAST):
        scene.trust.called_back_elsewhere("docs", "c0")
        scene.trust.called_back_elsewhere("docs", "e0")
    assert not scene.trust.works("docs")


def test_a_poll_in_flight_while_another_replica_is_called_back_finds_nothing_first() -> None:
    scene = Scene()
    for number in range(ENDS):
        scene.trust.called_back_elsewhere("docs", f"e{number}")
        scene.trust.polled("docs", f"e{number}")
    scene.now += GRACE_SECONDS
    assert scene.trust.works("docs")
