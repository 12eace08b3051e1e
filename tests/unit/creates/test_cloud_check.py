"""Whether the cloud can be asked for a create at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.creates.cloud_check import CloudCheck
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.cloud_clock import CloudTimes
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from typing import Any

ONE, OTHER = (Bucket(name, "ap-chongqing", "main") for name in ("one-1250000000", "other-1250000000"))
DATE = "Sun, 29 Nov 2026 12:00:00 GMT"


class FakeHistory:
    """Asks of buckets: those in `down` fail, all others tell the time."""

    def __init__(self, times: CloudTimes) -> None:
        self._times = times
        self.down: set[str] = set()
        self.asked: list[str] = []

    async def hear(self, bucket: Bucket) -> None:
        self.asked.append(bucket.name)
        if bucket.name in self.down:
            raise UpstreamError(reasons.ERROR_REASON_UPSTREAM_UNREACHABLE, "no connection")
        self._times.hear(bucket.ci_host, DATE)


class Scene:
    def __init__(self) -> None:
        self.times = CloudTimes(FakeClock())
        self.history = FakeHistory(self.times)
        self.hosts: dict[str, str] = {}
        history: Any = self.history
        self.check = CloudCheck(history, self.times, [ONE, OTHER], lambda name: self.hosts.get(name, ""))


@pytest.fixture
def scene() -> Scene:
    return Scene()


async def test_a_cloud_that_callers_have_heard_is_not_asked(scene: Scene) -> None:
    scene.times.hear(OTHER.ci_host, DATE)
    await scene.check.round()
    assert (scene.check.problem, scene.history.asked) == ("", [])


async def test_a_cloud_that_nobody_has_asked_yet_is_no_problem_before_it_has_been(scene: Scene) -> None:
    assert scene.check.problem == ""
    await scene.check.round()
    assert (scene.check.problem, scene.history.asked) == ("", [ONE.name])


async def test_of_a_cloud_that_nobody_has_asked_yet_nothing_is_known(scene: Scene) -> None:
    """`ok` would be said of one that is not there, in the first seconds of each process."""
    assert not scene.check.is_known
    await scene.check.round()
    assert scene.check.is_known


async def test_a_cloud_that_was_never_heard_is_a_problem_until_it_answers(scene: Scene) -> None:
    """One bucket is asked in each round, in turns."""
    scene.history.down = {ONE.name, OTHER.name}
    await scene.check.round()
    await scene.check.round()
    assert scene.check.problem == f"no bucket of the cloud can be used; {OTHER.name}: no connection"
    assert scene.history.asked == [ONE.name, OTHER.name]
    scene.history.down.clear()
    await scene.check.round()
    assert scene.check.problem == ""


async def test_one_bucket_that_fails_beside_another_is_no_problem_of_the_cloud(scene: Scene) -> None:
    for bucket in (ONE, OTHER):
        scene.times.hear(bucket.ci_host, DATE)
    scene.hosts[ONE.name] = "its circuit breaker is open"
    await scene.check.round()
    assert (scene.check.problem, scene.history.asked) == ("", [])


async def test_hosts_that_all_fail_are_a_problem_with_the_reason_of_the_host(scene: Scene) -> None:
    """They are asked until one works: without callers nobody else would close the breaker."""
    for bucket in (ONE, OTHER):
        scene.times.hear(bucket.ci_host, DATE)
        scene.hosts[bucket.name] = "its circuit breaker is open"
    scene.history.down = {ONE.name, OTHER.name}
    await scene.check.round()
    assert scene.check.problem == f"no bucket of the cloud can be used; {ONE.name}: its circuit breaker is open"
    del scene.hosts[OTHER.name]
    assert scene.check.problem == ""
