"""What tests of several folders share."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.redis_groups import Cluster, running_cluster
from tests.redis_server import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="session")
def _redis_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with running_redis(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest.fixture
def redis_server(_redis_of_the_session: RedisServer) -> RedisServer:
    """An empty Redis server, to be used but not to be stopped."""
    assert _redis_of_the_session.command("FLUSHALL").startswith(b"+OK")
    return _redis_of_the_session


@pytest.fixture(scope="session")
def _cluster_of_the_session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with running_cluster(tmp_path_factory.mktemp("cluster")) as cluster:
        yield cluster


@pytest.fixture
def redis_cluster(_cluster_of_the_session: Cluster) -> Cluster:
    """An empty Redis cluster, to be used but not to be stopped."""
    for node in _cluster_of_the_session.nodes:
        assert node.command("FLUSHALL").startswith(b"+OK")
    return _cluster_of_the_session
