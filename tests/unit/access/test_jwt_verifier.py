"""JWKS keys: when they are fetched, how often, and what happens while their issuer is unavailable."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from docpreview.v1 import error_reason_pb2 as r
from docpreview_gateway.access import jwks_http
from docpreview_gateway.access.directory import Unauthenticated
from docpreview_gateway.access.jwt_verifier import (
    MAX_WAITING,
    REFRESH_SECONDS,
    TRUSTED_SECONDS,
    JwksKeys,
    KeysError,
    parse_keys,
)
from docpreview_gateway.model.errors import GatewayError
from tests.fakes.clock import FakeClock
from tests.fakes.raw_server import Exchange, RawServer
from tests.integration.issuer import Issuer

if TYPE_CHECKING:
    from jwt import PyJWK

ISSUER = Issuer("ec1", "ec2")


class Idp:
    """An identity provider that can fail or hang, and counts fetches."""

    def __init__(self) -> None:
        self.visits = 0
        self.error: Exception | None = None
        self.open = asyncio.Event()
        self.open.set()
        self.kids = {"ec1"}

    async def fetch(self) -> dict[str, PyJWK]:
        self.visits += 1
        await self.open.wait()
        if self.error is not None:
            raise self.error
        return {kid: key for kid, key in parse_keys(ISSUER.jwks().encode()).items() if kid in self.kids}


@pytest.fixture
def idp() -> Idp:
    """An identity provider that answers."""
    return Idp()


@pytest.fixture
def clock() -> FakeClock:
    """A clock that the test advances."""
    return FakeClock()


@pytest.fixture
async def keys(idp: Idp, clock: FakeClock) -> JwksKeys:
    """Keys after the fetch at start-up."""
    made = JwksKeys(idp.fetch, elapsed=clock.now, changed=lambda: None)
    await made.refresh()
    return made


async def test_a_known_key_is_used_without_a_fetch(keys: JwksKeys, idp: Idp) -> None:
    """The only fetch is that at start-up."""
    assert (await keys.key("ec1")).key_id == "ec1"
    assert idp.visits == 1


async def test_unknown_keys_cause_one_fetch_per_refresh_interval(keys: JwksKeys, idp: Idp, clock: FakeClock) -> None:
    """However many tokens name unknown keys."""
    for _ in range(100):
        with pytest.raises(Unauthenticated):
            await keys.key("ec2")
    assert idp.visits == 1
    clock.time += REFRESH_SECONDS
    idp.kids = {"ec2"}
    assert (await keys.key("ec2")).key_id == "ec2"
    with pytest.raises(Unauthenticated):
        await keys.key("ec1")
    assert idp.visits == 2


async def test_calls_with_an_unknown_key_share_one_fetch(keys: JwksKeys, idp: Idp, clock: FakeClock) -> None:
    """Cancelling one does not cancel it, and known keys are returned meanwhile."""
    clock.time += REFRESH_SECONDS
    idp.open.clear()
    idp.kids = {"ec1", "ec2"}
    waiting = [asyncio.create_task(keys.key("ec2")) for _ in range(50)]
    await asyncio.sleep(0)
    waiting[0].cancel()
    assert (await keys.key("ec1")).key_id == "ec1"
    idp.open.set()
    found = await asyncio.gather(*waiting[1:])
    assert {key.key_id for key in found} == {"ec2"}
    assert idp.visits == 2


async def test_few_calls_wait_for_the_keys_and_further_ones_are_refused_at_once(
    keys: JwksKeys, idp: Idp, clock: FakeClock
) -> None:
    """With IDENTITY_UNAVAILABLE and a wait; the places are free again after a cancellation, and after the fetch."""
    clock.time += REFRESH_SECONDS
    idp.open.clear()
    idp.kids = {"ec1", "ec2"}
    waiting = [asyncio.create_task(keys.key("ec2")) for _ in range(MAX_WAITING)]
    await asyncio.sleep(0)
    for _ in range(3):
        with pytest.raises(GatewayError) as caught:
            await keys.key("ec2")
        assert caught.value.reason == r.ERROR_REASON_IDENTITY_UNAVAILABLE
        assert caught.value.retry_after == 1.0
    assert (await keys.key("ec1")).key_id == "ec1"
    waiting[0].cancel()
    await asyncio.wait(waiting[:1])
    last = asyncio.create_task(keys.key("ec2"))
    await asyncio.sleep(0)
    idp.open.set()
    assert {key.key_id for key in await asyncio.gather(*waiting[1:], last)} == {"ec2"}
    assert idp.visits == 2


async def test_a_periodic_fetch_and_that_of_a_token_are_one(keys: JwksKeys, idp: Idp, clock: FakeClock) -> None:
    """Whichever begins first; both get its error."""
    clock.time += REFRESH_SECONDS
    idp.open.clear()
    idp.error = KeysError("broken")
    token = asyncio.create_task(keys.key("ec2"))
    await asyncio.sleep(0)
    periodic = asyncio.create_task(keys.refresh())
    await asyncio.sleep(0)
    idp.open.set()
    with pytest.raises(KeysError):
        await periodic
    with pytest.raises(Unauthenticated):
        await token
    assert idp.visits == 2


async def test_keys_stay_in_use_for_a_day_while_their_issuer_is_unavailable(
    keys: JwksKeys, idp: Idp, clock: FakeClock
) -> None:
    """After that calls fail with IDENTITY_UNAVAILABLE, which can be retried."""
    idp.error = jwks_http.FetchError("gone")
    clock.time += TRUSTED_SECONDS - 1
    assert (await keys.key("ec1")).key_id == "ec1"
    clock.time += 2
    with pytest.raises(GatewayError) as caught:
        await keys.key("ec1")
    assert caught.value.reason == r.ERROR_REASON_IDENTITY_UNAVAILABLE
    with pytest.raises(jwks_http.FetchError):
        await keys.refresh()


async def test_a_token_triggers_a_fetch_when_there_was_none_at_start_up(idp: Idp, clock: FakeClock) -> None:
    """After the refresh interval."""
    idp.error = KeysError("broken")
    keys = JwksKeys(idp.fetch, elapsed=clock.now, changed=lambda: None)
    with pytest.raises(GatewayError) as caught:
        await keys.key("ec1")
    assert caught.value.reason == r.ERROR_REASON_IDENTITY_UNAVAILABLE
    idp.error = None
    clock.time += REFRESH_SECONDS
    assert (await keys.key("ec1")).key_id == "ec1"


@pytest.mark.parametrize(
    "text", [b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [{"kty": "oct", "k": "AA"}]}', b"\xff"]
)
def test_a_document_without_public_signing_keys_is_rejected(text: bytes) -> None:
    """KeysError."""
    with pytest.raises(KeysError):
        parse_keys(text)


async def redirect(exchange: Exchange) -> None:
    await exchange.answer(status="302 Found", headers="Location: http://169.254.169.254/\r\n")


async def endless(exchange: Exchange) -> None:
    await exchange.answer(b"x" * (jwks_http.MAX_BYTES + 1))


async def error(exchange: Exchange) -> None:
    await exchange.answer(b"{}", status="500 Oops")


async def gone(exchange: Exchange) -> None:
    exchange.reset()


@pytest.mark.parametrize("behaviour", [redirect, endless, error, gone])
async def test_redirects_errors_and_endless_documents_are_fetch_errors(behaviour: object) -> None:
    """No redirect is followed, and memory is bounded."""
    async with RawServer(behaviour) as server:  # type: ignore[arg-type]
        with pytest.raises(jwks_http.FetchError):
            await jwks_http.fetch(server.url)
        assert server.exchanges


async def test_a_jwks_is_fetched_and_parsed() -> None:
    """All of its keys are found."""

    async def document(exchange: Exchange) -> None:
        await exchange.answer(ISSUER.jwks().encode())

    async with RawServer(document) as server:
        assert set(parse_keys(await jwks_http.fetch(server.url))) == {"ec1", "ec2"}
