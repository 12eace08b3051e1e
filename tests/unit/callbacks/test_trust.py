"""Whether callbacks come is learned from which came first: the callback or a poll."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.callbacks.trust import ENDS, GRACE_SECONDS, HOUR, LEAST, Trust


def job(job_id: str, queue_id: str = "p1", state: PreviewJob.State.ValueType = PreviewJob.STATE_SUCCESS) -> PreviewJob:
    return PreviewJob(bucket="docs", queue_id=queue_id, job_id=job_id, state=state)


class Scene:
    def __init__(self) -> None:
        self.now = 1000.0
        self.told: list[tuple[str, str, bool]] = []
        self.ends: list[bool] = []
        self.trust = Trust(lambda: self.now, self)

    def working(self, bucket: str, queue_id: str, works: bool) -> None:  # noqa: FBT001 - as the port
        self.told.append((bucket, queue_id, works))

    def found(self, _bucket: str, _queue_id: str, *, by_callback: bool) -> None:
        self.ends.append(by_callback)

    def come(self, count: int) -> None:
        for number in range(count):
            self.trust.called_back(job(f"c{number}"))

    def miss(self, count: int) -> None:
        for number in range(count):
            self.trust.polled(job(f"m{number}"))
        self.now += GRACE_SECONDS


def test_callbacks_are_relied_upon_once_several_have_come_and_only_for_their_bucket() -> None:
    scene = Scene()
    scene.come(LEAST - 1)
    assert not scene.trust.works("docs", "p1")
    scene.come(1)
    assert scene.trust.works("docs", "p1")
    assert not scene.trust.works("others", "p1")
    assert scene.told == [("docs", "p1", False), ("docs", "p1", True), ("others", "p1", False)]


@pytest.mark.parametrize(("misses", "works"), [(2, True), (3, False)])
def test_they_are_not_relied_upon_any_more_when_polls_find_ends_first(*, misses: int, works: bool) -> None:
    """More than a tenth of the last ends."""
    scene = Scene()
    scene.come(ENDS)
    scene.miss(misses)
    assert scene.trust.works("docs", "p1") == works


def test_a_callback_that_comes_a_moment_after_a_poll_has_come() -> None:
    scene = Scene()
    scene.come(ENDS)
    for number in range(ENDS):
        scene.trust.polled(job(f"late{number}"))
        scene.trust.came_late("docs", f"late{number}")
    scene.now += GRACE_SECONDS
    assert scene.trust.works("docs", "p1")
    assert scene.ends == [True] * 2 * ENDS


def test_what_was_learned_an_hour_ago_says_nothing() -> None:
    """The way of callbacks may have changed since."""
    scene = Scene()
    scene.come(ENDS)
    assert scene.trust.works("docs", "p1")
    scene.now += HOUR + 1
    assert not scene.trust.works("docs", "p1")
    assert scene.told == [("docs", "p1", True), ("docs", "p1", False)]


def test_what_another_replica_was_called_back_about_teaches_and_is_counted_there() -> None:
    """Sums over replicas have each end once."""
    scene = Scene()
    scene.trust.polled(job("e0"))
    for number in range(LEAST):
        scene.trust.called_back_elsewhere("docs", f"e{number}", "p1")
    scene.now += GRACE_SECONDS
    assert scene.trust.works("docs", "p1")
    assert scene.ends == []


def test_a_queue_that_calls_nobody_back_is_not_relied_upon_because_of_another_one() -> None:
    """Without a queue it is asked whether any of the bucket's does."""
    scene = Scene()
    scene.come(ENDS)
    for number in range(ENDS):
        scene.trust.polled(job(f"m{number}", "p2"))
    scene.now += GRACE_SECONDS
    assert [scene.trust.works("docs", queue_id) for queue_id in ("p1", "p2")] == [True, False]
    assert (scene.trust.works("docs"), scene.trust.works("others")) == (True, False)
    for number in range(ENDS):
        scene.trust.missed(job(f"l{number}"))
    assert not scene.trust.works("docs")
    assert [works for _, queue_id, works in scene.told if queue_id == "p1"] == [True, False]


def test_what_several_replicas_were_called_back_about_teaches_once() -> None:
    """Of a callback that came twice, or of a job that this one was called back about too."""
    scene = Scene()
    scene.come(1)
    for _ in range(LEAST):
        scene.trust.called_back_elsewhere("docs", "c0", "p1")
        scene.trust.called_back_elsewhere("docs", "e0", "p1")
    assert not scene.trust.works("docs")


def test_a_poll_in_flight_while_another_replica_is_called_back_finds_nothing_first() -> None:
    scene = Scene()
    for number in range(ENDS):
        scene.trust.called_back_elsewhere("docs", f"e{number}", "p1")
        scene.trust.polled(job(f"e{number}"))
    scene.now += GRACE_SECONDS
    assert scene.trust.works("docs")


def test_jobs_that_were_cancelled_say_nothing_of_callbacks() -> None:
    """The cloud calls nobody back about them."""
    scene = Scene()
    scene.come(ENDS)
    for number in range(ENDS):
        scene.trust.polled(job(f"x{number}", state=PreviewJob.STATE_CANCELLED))
    scene.now += GRACE_SECONDS
    assert scene.trust.works("docs", "p1")
    assert scene.ends == [True] * ENDS


def test_what_is_known_by_now_is_recorded_without_another_job() -> None:
    """Before each scrape: a quiet queue shows its misses, and what has become too old."""
    scene = Scene()
    assert not scene.trust.works("docs", "p1")
    scene.come(LEAST)
    scene.trust.settle()
    scene.miss(LEAST)
    scene.trust.settle()
    assert scene.ends == [True] * LEAST + [False] * LEAST
    assert scene.told == [("docs", "p1", False), ("docs", "p1", True), ("docs", "p1", False)]


def test_a_change_is_told_in_the_log_once() -> None:
    scene = Scene()
    with capture_logs() as logs:
        assert not scene.trust.works("docs", "p1")
        scene.come(ENDS)
        for _ in range(2):
            assert scene.trust.works("docs", "p1")
        scene.miss(ENDS)
        assert not scene.trust.works("docs", "p1")
    assert [line["event"] for line in logs] == [
        "callbacks of a queue are relied upon",
        "callbacks of a queue are not relied upon any more",
    ]
