"""The cache that replicas share, against a real Redis server and against misbehaving ones."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, closing
from typing import TYPE_CHECKING, Any

import pytest
from redis.crc import key_slot

from docpreview.v1.preview_job_pb2 import PreviewJob
from docpreview_gateway.storage.redis_client import RedisClient
from docpreview_gateway.storage.redis_connections import CONNECTIONS, redis_batches
from docpreview_gateway.upstream.policies.cache_entries import Entry, encode, seen
from docpreview_gateway.upstream.ports import Turn
from docpreview_gateway.upstream.redis_single_flight import LEASE_SECONDS, RedisSingleFlight
from docpreview_gateway.wiring.shared_state import shared_parts
from tests.fakes.telemetry import FakeTelemetry
from tests.redis_server import running_redis

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from docpreview_gateway.storage.redis_client import Argument
    from tests.redis_server import RedisServer

KEY, NOW = "job:ap-chongqing:docs-1250000000:d1", 1_764_000_000.25
LEASE = f"docpreview:2:tests:{{{KEY}}}:lease"
SKIPPED, ERROR = ("shared", "skipped"), ("shared", "error")


@asynccontextmanager
async def cache_of(url: str, *, seconds: float = 0.05) -> AsyncIterator[tuple[RedisSingleFlight, FakeTelemetry]]:
    telemetry = FakeTelemetry()
    async with redis_batches(url) as send:
        redis = RedisClient(send, name="shared cache", seconds=seconds, fallback="continuing without it")
        yield RedisSingleFlight(redis, "tests", telemetry), telemetry


@asynccontextmanager
async def server_that_says(answer: bytes | None, *, byte_seconds: float = 0.0) -> AsyncIterator[str]:
    """The URL of a server that answers every request with these bytes, byte by byte, or (None) never."""
    serving: set[asyncio.Task[None]] = set()

    async def answer_all(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with closing(writer):
            while await reader.read(65536):
                for byte in answer or b"":
                    writer.write(bytes((byte,)))
                    await asyncio.sleep(byte_seconds)

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.ensure_future(answer_all(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for task in serving:
            task.cancel()
        await asyncio.gather(*serving, return_exceptions=True)


class TestRealServer:
    async def test_a_value_of_another_replica_is_read_unchanged(self, redis_server: RedisServer) -> None:
        """Any bytes are stored."""
        value = bytes(range(256)) * 100
        async with (
            cache_of(redis_server.url, seconds=1) as (one, _),
            cache_of(redis_server.url, seconds=1) as (other, telemetry),
        ):
            await one.store("k", value, 10)
            assert await other.get("k") == value
            assert await other.get("another") is None
        assert telemetry.lookups == []

    async def test_every_key_has_our_prefix_and_version_and_every_value_expires(
        self, redis_server: RedisServer
    ) -> None:
        """Keys begin with `docpreview:2:` and the namespace."""
        async with cache_of(redis_server.url, seconds=1) as (cache, _):
            await cache.store("k", b"v", 10)
        assert b"docpreview:2:tests:{k}:cached" in redis_server.command("KEYS", "*")
        life = int(redis_server.command("PTTL", "docpreview:2:tests:{k}:cached")[1:])
        assert 9000 < life <= 10000

    async def test_a_lifetime_below_a_millisecond_is_accepted(self, redis_server: RedisServer) -> None:
        """Redis counts lifetimes in milliseconds."""
        async with cache_of(redis_server.url, seconds=1) as (cache, telemetry):
            await cache.store("k", b"v", 0.0001)
        assert telemetry.lookups == []

    async def test_a_key_of_another_type_is_a_miss(self, redis_server: RedisServer) -> None:
        """The server is healthy, so later reads are not skipped."""
        redis_server.command("LPUSH", "docpreview:2:tests:{k}:cached", "x")
        async with cache_of(redis_server.url, seconds=1) as (cache, telemetry):
            assert [await cache.get("k") for _ in range(5)] == [None] * 5
            await cache.store("other", b"v", 10)
            assert await cache.get("other") == b"v"
        assert telemetry.lookups == [ERROR] * 5

    async def test_a_full_server_stores_nothing_and_serves_reads(self, tmp_path: Path) -> None:
        """A refused write is no exception."""
        with running_redis(tmp_path, "--maxmemory", "1mb", "--maxmemory-policy", "noeviction") as server:
            async with cache_of(server.url) as (cache, telemetry):
                await cache.store("k", b"v" * 2_000_000, 10)
                assert await cache.get("k") is None
        assert telemetry.lookups[:1] == [ERROR]

    async def test_a_server_with_a_password_needs_the_right_one(self, tmp_path: Path) -> None:
        """Without it, or with a wrong one, every read is a miss."""
        with running_redis(tmp_path, "--requirepass", "p@ss/word") as server:
            for password, found in (("p%40ss%2Fword", b"v"), ("wrong", None), (None, None)):
                url = server.url if password is None else server.url.replace("//", f"//:{password}@")
                async with cache_of(url, seconds=1) as (cache, _):
                    await cache.store("k", b"v", 10)
                    assert await cache.get("k") == found

    async def test_a_unix_socket_is_an_address_like_any_other(
        self, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        """The URL has the scheme `unix`."""
        path = tmp_path_factory.mktemp("s") / "s"
        with running_redis(tmp_path, "--unixsocket", str(path)):
            async with cache_of(f"unix://{path}?db=1", seconds=1) as (cache, _):
                await cache.store("k", b"v", 10)
                assert await cache.get("k") == b"v"

    async def test_cancelled_reads_mix_up_no_answers_and_lose_no_connection(self, redis_server: RedisServer) -> None:
        """No read gets the answer to a cancelled one."""
        async with cache_of(redis_server.url, seconds=5) as (cache, telemetry):
            for number in range(20):
                await cache.store(str(number), b"%d" % number, 60)
            for round_ in range(100):
                tasks = [asyncio.ensure_future(cache.get(str(number))) for number in range(20)]
                for _ in range(round_ % 12):
                    await asyncio.sleep(0)
                for task in tasks[::2]:
                    task.cancel()
                answers = await asyncio.gather(*tasks, return_exceptions=True)
                assert answers[1::2] == [b"%d" % number for number in range(1, 20, 2)]
                assert all(isinstance(answer, asyncio.CancelledError | bytes) for answer in answers)
            assert await asyncio.gather(*(cache.get("1") for _ in range(4 * CONNECTIONS))) == [b"1"] * 4 * CONNECTIONS
        assert telemetry.lookups == []


@asynccontextmanager
async def listening(url: str) -> AsyncIterator[RedisSingleFlight]:
    """A replica that may lead and follow."""
    async with shared_parts(url, "tests", FakeTelemetry(), seconds=5) as parts:
        single_flight = parts.single_flight
        async with parts.listening(lambda _bucket: None, lambda _bucket, _job_id, _queue_id: None), asyncio.timeout(10):
            while (await single_flight.turn("probe", 0.0, no_cache=True)).role == "alone":  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            single_flight.end("probe", b"", 0)
            yield single_flight


def envelope(*, read_at: float = NOW, fresh_until: float = NOW + 1, key: str = KEY) -> bytes:
    return encode(key, Entry(PreviewJob(job_id="d1"), read_at, fresh_until))


class TestTurn:
    """What one look into the cache and for the lease says."""

    @pytest.mark.parametrize(
        ("kept", "role"),
        [
            (envelope(), "found"),
            (envelope(fresh_until=NOW), "leader"),
            (envelope(read_at=NOW + 2, fresh_until=NOW + 3), "found"),
            (envelope(read_at=NOW + 2.1, fresh_until=NOW + 3), "leader"),
            (encode(KEY, Entry(None, NOW, NOW + 2)), "found"),
            (b"\x02" + envelope()[1:], "leader"),
            (envelope()[:18], "leader"),
            (b"x", "leader"),
            (None, "leader"),
        ],
        ids=["fresh", "stale", "ahead", "far ahead", "missing job", "of another version", "cut", "garbage", "nothing"],
    )
    async def test_a_fresh_answer_is_found_and_all_else_comes_with_the_lease(
        self, redis_server: RedisServer, kept: bytes | None, role: str
    ) -> None:
        """As `cache_entries` has it. A stale copy may be answered if the cloud fails."""
        async with listening(redis_server.url) as one:
            if kept is not None:
                await one.store(KEY, kept, 60)
            assert await one.turn(KEY, NOW, no_cache=False) == Turn(role, kept)  # type: ignore[arg-type]
            assert redis_server.command("EXISTS", LEASE) == (b":1\r\n" if role == "leader" else b":0\r\n")
            entry = seen(KEY, kept, NOW)
            assert (entry is not None and entry.is_fresh(NOW)) is (role == "found")

    async def test_a_no_cache_read_gets_the_lease_whatever_is_cached(self, redis_server: RedisServer) -> None:
        async with listening(redis_server.url) as one:
            await one.store(KEY, envelope(), 60)
            assert await one.turn(KEY, NOW, no_cache=True) == Turn("leader")

    async def test_who_comes_later_follows_and_finds_the_result_when_it_asks_again(
        self, redis_server: RedisServer
    ) -> None:
        """And has been sent it before."""
        async with listening(redis_server.url) as one, listening(redis_server.url) as other:
            assert await one.turn(KEY, NOW, no_cache=False) == Turn("leader")
            with other.subscribe(KEY) as results:
                assert await other.turn(KEY, NOW, no_cache=False) == Turn("follower")
                one.end(KEY, envelope(), 60)
                assert await results.next(5) == envelope()
                assert await other.turn(KEY, NOW, no_cache=False) == Turn("found", envelope())
            assert redis_server.command("EXISTS", LEASE) == b":0\r\n"

    async def test_a_result_that_nobody_may_keep_is_sent_and_not_stored(self, redis_server: RedisServer) -> None:
        async with listening(redis_server.url) as one, listening(redis_server.url) as other:
            await one.turn(KEY, NOW, no_cache=False)
            with other.subscribe(KEY) as results:
                await other.turn(KEY, NOW, no_cache=False)
                one.end(KEY, envelope(), 0)
                assert await results.next(5) == envelope()
            assert await other.get(KEY) is None

    async def test_a_leader_whose_lease_has_passed_to_another_replica_stores_nothing(
        self, redis_server: RedisServer
    ) -> None:
        """The other one's read is newer."""
        async with listening(redis_server.url) as one:
            await one.turn(KEY, NOW, no_cache=False)
            redis_server.command("SET", LEASE, "another", "PX", "60000")
            one.end(KEY, envelope(), 60)
            await one.close()
            assert await one.get(KEY) is None
            assert b"another" in redis_server.command("GET", LEASE)

    async def test_a_leader_that_stood_still_until_its_lease_ended_tells_what_it_has_read(
        self, redis_server: RedisServer
    ) -> None:
        """Nobody else may read the job for minutes. It replaces nothing that was read later."""
        async with listening(redis_server.url) as one, listening(redis_server.url) as other:
            await one.turn(KEY, NOW, no_cache=False)
            with other.subscribe(KEY) as results:
                await other.turn(KEY, NOW, no_cache=False)
                redis_server.command("DEL", LEASE)
                one.end(KEY, envelope(), 60)
                assert await results.next(5) == envelope()
            assert await other.get(KEY) == envelope()
            await one.turn(KEY, NOW, no_cache=True)
            newer = encode(KEY, Entry(None, NOW + 60, NOW + 120))
            await other.store(KEY, newer, 60)
            redis_server.command("DEL", LEASE)
            with other.subscribe(KEY) as results:
                await other.ask(KEY, 5)
                one.end(KEY, envelope(), 60)
                await one.close()
                assert await results.next(0.2) is None
            assert await other.get(KEY) == newer

    async def test_a_cancelled_look_leaves_no_lease(self, redis_server: RedisServer) -> None:
        """Whatever the moment: the server may have given it already."""
        async with listening(redis_server.url) as one:
            for moment in range(12):
                look = asyncio.ensure_future(one.turn(KEY, NOW, no_cache=False))
                for _ in range(moment):
                    await asyncio.sleep(0)
                if not look.cancel():
                    one.end(KEY, b"", 0)
                await asyncio.gather(look, return_exceptions=True)
                async with asyncio.timeout(LEASE_SECONDS / 2):
                    await asyncio.sleep(0.02)
                    while redis_server.command("EXISTS", LEASE) != b":0\r\n":  # noqa: ASYNC110
                        await asyncio.sleep(0.01)

    async def test_a_look_whose_answer_comes_too_late_leaves_no_lease(self, redis_server: RedisServer) -> None:
        """The server has given it, and the next read would wait for a leader that there is not."""
        async with redis_batches(redis_server.url) as send:

            async def late(*command: Argument) -> Any:
                answer = await send(*command)
                await asyncio.sleep(0.1)
                return answer

            redis = RedisClient(late, name="shared cache", seconds=0.05, fallback="continuing without it")
            one = RedisSingleFlight(redis, "tests", FakeTelemetry())
            one.is_listening = True
            assert await one.turn(KEY, NOW, no_cache=False) == Turn("alone")
            await one.close()
            assert redis_server.command("EXISTS", LEASE) == b":0\r\n"

    async def test_a_lease_that_a_look_of_the_same_replica_has_left_behind_is_taken_again(
        self, redis_server: RedisServer
    ) -> None:
        """Giving it back may have failed, or have come before it. Nobody reads then, so nobody is to be followed."""
        async with listening(redis_server.url) as one:
            assert await one.turn(KEY, NOW, no_cache=False) == Turn("leader")
            redis_server.command("PEXPIRE", LEASE, "10")
            assert await one.turn(KEY, NOW, no_cache=False) == Turn("leader")
            assert int(redis_server.command("PTTL", LEASE)[1:]) > 10
            one.end(KEY, envelope(), 60)
            await one.close()
            assert redis_server.command("EXISTS", LEASE) == b":0\r\n"
            assert one._renewals == {}

    async def test_a_replica_that_does_not_hear_the_others_uses_the_cache_and_takes_no_lease(
        self, redis_server: RedisServer
    ) -> None:
        """It could not hear the result of the read that it would follow."""
        async with cache_of(redis_server.url, seconds=5) as (one, _):
            assert await one.turn(KEY, NOW, no_cache=False) == Turn("alone")
            await one.store(KEY, envelope(fresh_until=NOW), 60)
            assert await one.turn(KEY, NOW, no_cache=False) == Turn("alone", envelope(fresh_until=NOW))
            await one.store(KEY, envelope(), 60)
            assert await one.turn(KEY, NOW, no_cache=False) == Turn("found", envelope())
            assert await one.turn(KEY, NOW, no_cache=True) == Turn("alone")
            assert redis_server.command("EXISTS", LEASE) == b":0\r\n"

    async def test_a_server_that_has_lost_its_scripts_is_told_them_again(self, redis_server: RedisServer) -> None:
        """It was started since, or another one took its place."""
        async with listening(redis_server.url) as one:
            assert redis_server.command("SCRIPT", "FLUSH") == b"+OK\r\n"
            assert await one.turn(KEY, NOW, no_cache=False) == Turn("leader")
            assert redis_server.command("SCRIPT", "FLUSH") == b"+OK\r\n"
            one.end(KEY, envelope(), 60)
            await one.close()
            assert await one.get(KEY) == envelope()

    def test_all_keys_of_a_read_are_in_one_slot_of_a_cluster(self) -> None:
        """One script uses them; the braces say of what the slot is made."""
        redis = RedisClient(asyncio.sleep, name="", seconds=1)
        slots = {key_slot(key.encode()) for key in RedisSingleFlight(redis, "a{b}c", FakeTelemetry())._keys(KEY)}
        assert slots == {key_slot(KEY.encode())}


class TestServerThatIsGone:
    async def test_a_refusing_server_is_tried_a_few_times_and_then_skipped(self) -> None:
        """The outage is detected by the first calls; the others do not connect."""
        async with server_that_says(None) as url:
            pass
        async with cache_of(url) as (cache, telemetry):
            assert [await cache.get("k") for _ in range(10)] == [None] * 10
        assert telemetry.lookups == [ERROR] * 3 + [SKIPPED] * 7

    @pytest.mark.parametrize(
        "answer",
        [None, b"$1000000\r\n" + b"x" * 200],
        ids=["black hole", "drip"],
    )
    async def test_a_server_without_a_complete_answer_is_a_miss_in_time(self, answer: bytes | None) -> None:
        """Also while bytes keep arriving."""
        loop = asyncio.get_running_loop()
        async with server_that_says(answer, byte_seconds=0.01) as url, cache_of(url) as (cache, telemetry):
            for _ in range(3):
                begin = loop.time()
                assert await cache.get("k") is None
                assert 0.04 < loop.time() - begin < 0.5
            begin = loop.time()
            for _ in range(100):
                assert await cache.get("k") is None
            assert loop.time() - begin < 0.5
        assert telemetry.lookups == [ERROR] * 3 + [SKIPPED] * 100

    async def test_a_value_is_not_stored_after_a_read_without_answer(self) -> None:
        """One call never waits twice."""
        async with server_that_says(None) as url, cache_of(url) as (cache, telemetry):
            await cache.get("k")
            await cache.store("k", b"v", 10)
        assert telemetry.lookups == [ERROR, SKIPPED]

    async def test_a_call_that_has_waited_already_waits_for_the_rest_only(self) -> None:
        """With no time left the server gets no request."""
        loop = asyncio.get_running_loop()
        async with (
            server_that_says(b"$9\r\n", byte_seconds=0.01) as url,
            cache_of(url, seconds=1) as (cache, telemetry),
        ):
            begin = loop.time()
            assert (await cache.turn("k", 0.0, no_cache=False, spent=0.9)).role == "alone"
            assert loop.time() - begin < 0.6
        async with cache_of(url, seconds=1) as (cache, telemetry_then):
            assert (await cache.turn("k", 0.0, no_cache=False, spent=1.0)).role == "alone"
        assert (telemetry.lookups, telemetry_then.lookups) == ([ERROR], [SKIPPED])

    @pytest.mark.parametrize(
        "answer",
        [
            b"HTTP/1.1 400 Bad Request\r\n\r\n",
            b"\x00\xff\r\n",
            b"-LOADING Redis is loading the dataset in memory\r\n",
            b"-ERR no\r\n",
            b":1\r\n",
            b"*2\r\n$1\r\na\r\n$1\r\nb\r\n",
            b"*2\r\n$5\r\nfound\r\n:1\r\n",
        ],
    )
    async def test_a_malformed_answer_is_a_miss(self, answer: bytes) -> None:
        """Errors, other types and garbage."""
        async with server_that_says(answer) as url, cache_of(url) as (cache, _):
            for _ in range(5):
                await cache.store("k", b"v", 10)
                assert await cache.get("k") is None
                assert await cache.turn("k", 0.0, no_cache=False) == Turn("alone")

    async def test_a_restarted_server_is_used_again(self, tmp_path: Path) -> None:
        """Within two seconds."""
        with running_redis(tmp_path) as server:
            async with cache_of(server.url) as (cache, _), asyncio.timeout(20):
                server.kill()
                for _ in range(5):
                    await cache.get("k")
                server.start()
                begin = asyncio.get_running_loop().time()
                while await cache.get("k") is None:
                    await cache.store("k", b"v", 60)
                    await asyncio.sleep(0.01)
                assert asyncio.get_running_loop().time() - begin < 2
