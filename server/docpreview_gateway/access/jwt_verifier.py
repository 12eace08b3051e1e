"""Signed tokens (JWT), verified by PyJWT with their issuer's keys; a token cannot choose where keys are fetched."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any, TypeAlias

import jwt

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.access.directory import Unauthenticated
from docpreview_gateway.model.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

LEEWAY_SECONDS = 30
REFRESH_SECONDS = 30.0
"""Shortest time between two fetches, however many tokens name unknown keys."""

MAX_WAITING = 64
"""Most calls that wait for one issuer's keys; strangers can send any number of tokens that name unknown keys."""

CROWDED_SECONDS = 1.0
"""`retry_after` of further ones."""

TRUSTED_SECONDS = 24 * 3600.0
"""How long keys stay in use while their issuer does not answer."""

_KEY_TYPES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
"""JWK key types, by the first letters of the algorithm."""


Fetch: TypeAlias = "Callable[[], Awaitable[dict[str, jwt.PyJWK]]]"


class KeysError(Exception):
    """A JWKS that cannot be fetched or parsed. The message quotes nothing of it."""


def parse_keys(text: bytes) -> dict[str, jwt.PyJWK]:
    """The public signing keys of a JWKS, by key id. Skips secrets and keys for other uses; KeysError without any."""
    try:
        found = json.loads(text)["keys"]
        usable = [key for key in found if key.get("kty") in _KEY_TYPES.values() and key.get("use", "sig") == "sig"]
        keys = {str(key.get("kid", "")): jwt.PyJWK(key) for key in usable}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, jwt.PyJWTError):
        raise KeysError("not a JWKS of public keys") from None
    if not keys:
        raise KeysError("no public key for signatures in the JWKS")
    return keys


class JwksKeys:
    """The current keys of an issuer.

    `fetch` reads them again (None: only `replace` changes them). `elapsed` is a clock in seconds that is never set.
    `changed` is called after every update.
    """

    def __init__(
        self,
        fetch: Fetch | None,
        *,
        elapsed: Callable[[], float],
        changed: Callable[[], None],
    ) -> None:
        self._fetch = fetch
        self._elapsed = elapsed
        self._changed = changed
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None
        self._waiting = 0

    def replace(self, keys: dict[str, jwt.PyJWK]) -> None:
        """Replace all keys."""
        self._keys, self._read_at = keys, self._elapsed()
        self._changed()

    async def key(self, kid: str | None) -> jwt.PyJWK:
        """The key of this id; without an id the only key. An unknown id fetches the keys, once in REFRESH_SECONDS.

        Unauthenticated when there is no such key; IDENTITY_UNAVAILABLE when MAX_WAITING calls wait already,
        or the keys are older than TRUSTED_SECONDS.
        """
        found = self._find(kid)
        if found is None and self._fetch is not None:
            await self._refetch(self._fetch)
            found = self._find(kid)
        if self._fetch is not None and self._elapsed() > self._read_at + TRUSTED_SECONDS:
            raise _unavailable("the keys of its issuer cannot be fetched", REFRESH_SECONDS)
        if found is None:
            raise Unauthenticated("the token names a key that its issuer does not have")
        return found

    async def refresh(self) -> None:
        """Fetch the keys, or join the fetch in flight. FetchError or KeysError: the old ones stay in use."""
        if self._fetch is not None:
            fetching = self._start(self._fetch)
            await asyncio.wait((fetching,))
            fetching.result()

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _refetch(self, fetch: Fetch) -> None:
        """Fetch the keys, once for all calls that wait for them. Cancelling a call does not cancel the fetch."""
        if self._fetching is None and self._elapsed() < self._tried_at + REFRESH_SECONDS:
            return
        if self._waiting >= MAX_WAITING:
            raise _unavailable("too many calls wait for the keys of its issuer", CROWDED_SECONDS)
        self._waiting += 1
        try:
            await asyncio.wait((self._start(fetch),))
        finally:
            self._waiting -= 1

    def _start(self, fetch: Fetch) -> asyncio.Task[None]:
        """The fetch in flight, which begins now if there is none."""
        if self._fetching is None:
            self._tried_at = self._elapsed()
            self._fetching = asyncio.create_task(self._renew(fetch), name="JWKS fetch")
            self._fetching.add_done_callback(self._fetched)
        return self._fetching

    async def _renew(self, fetch: Fetch) -> None:
        self.replace(await fetch())

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled():
            task.exception()


class JwtVerifier:
    """`TokenVerifier` of one issuer's tokens."""

    def __init__(self, keys: JwksKeys, *, issuer: str, audience: str, algorithms: tuple[str, ...]) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """Claims of a valid token; None for tokens of other issuers or kinds. Unauthenticated when it is invalid."""
        try:
            header = jwt.get_unverified_header(token)
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError:
            return None
        if issuer != self._issuer:
            return None
        key = await self._keys.key(_kid(header))
        algorithm = self._algorithm(header, key)
        try:
            found: dict[str, Any] = jwt.decode(
                token,
                key.key,
                algorithms=[algorithm],
                audience=self._audience,
                issuer=self._issuer,
                leeway=LEEWAY_SECONDS,
                options={"require": ["exp", "iss", "aud"]},
            )
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"the token is invalid: {type(error).__name__}") from None
        return found

    def _algorithm(self, header: Mapping[str, Any], key: jwt.PyJWK) -> str:
        """The token's algorithm. Unauthenticated unless it is allowed and fits the key's type."""
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise Unauthenticated("the token's algorithm is not allowed")
        if key.key_type != _KEY_TYPES[algorithm[:2]]:
            raise Unauthenticated("the token's algorithm does not fit its key")
        return algorithm


def _kid(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise Unauthenticated("the token's key id is not a string")
    return kid


def _unavailable(why: str, retry_after: float) -> GatewayError:
    return GatewayError(
        reasons.ERROR_REASON_IDENTITY_UNAVAILABLE,
        f"the token cannot be verified now: {why}",
        retry_after=retry_after,
    )
