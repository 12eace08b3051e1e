"""Servers that stand in for each other: a master with a replica and Sentinels, and a cluster of three."""

from __future__ import annotations

import time
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.redis_server import RedisServer, running_redis

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

PASSWORD = "p@ss/word"
NAME = "previews"
SLOTS = 16384
_WATCH = "sentinel monitor {name} 127.0.0.1 {port} 2\nsentinel auth-pass {name} {password}\n{times}"
_TIMES = "sentinel down-after-milliseconds {name} 500\nsentinel failover-timeout {name} 2000\n"


@dataclass
class Sentinels:
    """Three Sentinels that watch over a master and its replica."""

    master: RedisServer
    replica: RedisServer
    sentinels: list[RedisServer]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{each.port}" for each in self.sentinels)
        return f"redis+sentinel://:{PASSWORD.replace('@', '%40').replace('/', '%2F')}@{hosts}/{NAME}/0"


@contextmanager
def running_sentinels(folder: Path) -> Iterator[Sentinels]:
    """They know of each other and of the replica, so a failover is possible."""
    secret = ("--requirepass", PASSWORD, "--masterauth", PASSWORD)
    with ExitStack() as stack:
        master = stack.enter_context(running_redis(_made(folder / "master"), *secret))
        follows = ("--replicaof", "127.0.0.1", str(master.port))
        replica = stack.enter_context(running_redis(_made(folder / "replica"), *secret, *follows))
        sentinels = []
        for number in range(3):
            own = _made(folder / f"sentinel{number}")
            watch = _WATCH.format(name=NAME, port=master.port, password=PASSWORD, times=_TIMES.format(name=NAME))
            (own / "sentinel.conf").write_text(watch)
            sentinels.append(stack.enter_context(running_redis(own, config="sentinel.conf", mode=("--sentinel",))))
        for each in sentinels:
            _until(lambda each=each: _knows_all(each))  # type: ignore[misc]
        yield Sentinels(master, replica, sentinels)


def _knows_all(sentinel: RedisServer) -> bool:
    words = sentinel.command("SENTINEL", "MASTER", NAME).split(b"\r\n")
    known = dict(zip(words[2::4], words[4::4], strict=False))
    return known.get(b"num-slaves") == b"1" and known.get(b"num-other-sentinels") == b"2"


@dataclass
class Cluster:
    """Masters that share the slots; nobody stands in for one that is lost."""

    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)


@contextmanager
def running_cluster(folder: Path) -> Iterator[Cluster]:
    """Three masters that share the slots."""
    with ExitStack() as stack:
        nodes = []
        for number in range(3):
            options = ("--cluster-enabled", "yes", "--cluster-node-timeout", "1000")
            nodes.append(stack.enter_context(running_redis(_made(folder / f"node{number}"), *options, high_port=False)))
        for number, node in enumerate(nodes):
            first, last = SLOTS * number // 3, SLOTS * (number + 1) // 3 - 1
            assert node.command("CLUSTER", "ADDSLOTSRANGE", str(first), str(last)) == b"+OK\r\n"
            assert nodes[0].command("CLUSTER", "MEET", "127.0.0.1", str(node.port)) == b"+OK\r\n"
        for node in nodes:
            _until(lambda node=node: b"cluster_state:ok" in node.command("CLUSTER", "INFO"))  # type: ignore[misc]
            _until(lambda node=node: node.command("CLUSTER", "NODES").count(b"connected") == 3)  # type: ignore[misc]
        yield Cluster(nodes)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end, "the servers do not find each other"
        time.sleep(0.05)
