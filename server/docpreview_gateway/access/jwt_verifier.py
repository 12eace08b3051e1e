"""Signed tokens, verified by PyJWT with keys that are already here: a token never says where its key is fetched."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import jwt

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview_gateway.access.directory import Unauthenticated
from docpreview_gateway.model.errors import GatewayError

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping

    from docpreview_gateway.model.call import Clock

LEEWAY_SECONDS = 30
REFRESH_SECONDS = 30.0
"""At most one fetch in this time, however many tokens name keys that are not there."""

TRUSTED_SECONDS = 24 * 3600.0
"""How long keys are good while their issuer does not answer."""

_FAMILIES = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


class KeysError(Exception):
    """No set of keys: it cannot be fetched or read. The message quotes nothing of it."""


def parse_keys(text: bytes) -> dict[str, jwt.PyJWK]:
    """The public keys of a JWKS by their ids. Secrets and keys for other uses are left out; KeysError without any."""
    try:
        found = json.loads(text)["keys"]
        usable = [key for key in found if key.get("kty") in _FAMILIES.values() and key.get("use", "sig") == "sig"]
        keys = {str(key.get("kid", "")): jwt.PyJWK(key) for key in usable}
    except (ValueError, KeyError, TypeError, AttributeError, jwt.PyJWTError):
        raise KeysError("not a JWKS of public keys") from None
    if not keys:
        raise KeysError("no public key for signatures in it")
    return keys


class JwksKeys:
    """An issuer's keys as they are now. `fetch` reads them anew (None: they are replaced from outside).

    `changed` is called whenever they were read.
    """

    def __init__(
        self,
        fetch: Callable[[], Awaitable[dict[str, jwt.PyJWK]]] | None,
        *,
        clock: Clock,
        changed: Callable[[], None],
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._changed = changed
        self._keys: dict[str, jwt.PyJWK] = {}
        self._read_at = self._tried_at = float("-inf")
        self._fetching: asyncio.Task[None] | None = None

    def replace(self, keys: dict[str, jwt.PyJWK]) -> None:
        """These keys and no others, from now on."""
        self._keys, self._read_at = keys, self._clock.now()
        self._changed()

    async def key(self, kid: str | None) -> jwt.PyJWK:
        """The key of this id; without an id the only one. Unauthenticated when there is none, however often asked."""
        found = self._find(kid)
        if found is None and self._fetch is not None:
            await self._refetched()
            found = self._find(kid)
        if self._fetch is not None and self._clock.now() > self._read_at + TRUSTED_SECONDS:
            raise GatewayError(
                reasons.ERROR_REASON_IDENTITY_UNAVAILABLE,
                "the token cannot be verified now: the keys of its issuer cannot be read",
                retry_after=REFRESH_SECONDS,
            )
        if found is None:
            raise Unauthenticated("the token names a key that its issuer does not have")
        return found

    async def refresh(self) -> None:
        """Fetch the keys; KeysError, and the old ones stay."""
        if self._fetch is not None:
            self._tried_at = self._clock.now()
            self.replace(await self._fetch())

    def _find(self, kid: str | None) -> jwt.PyJWK | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    async def _refetched(self) -> None:
        """All who miss a key wait for one fetch, which none of them can end."""
        if self._fetching is None:
            if self._clock.now() < self._tried_at + REFRESH_SECONDS:
                return
            self._fetching = asyncio.create_task(self.refresh(), name="fetch of keys")
            self._fetching.add_done_callback(self._fetched)
        await asyncio.wait((self._fetching,))

    def _fetched(self, task: asyncio.Task[None]) -> None:
        self._fetching = None
        if not task.cancelled():
            task.exception()


class JwtVerifier:
    """The port `TokenVerifier` for the tokens of one issuer."""

    def __init__(self, keys: JwksKeys, *, issuer: str, audience: str, algorithms: tuple[str, ...]) -> None:
        self._keys = keys
        self._issuer = issuer
        self._audience = audience
        self._algorithms = frozenset(algorithms)

    async def claims(self, token: str) -> Mapping[str, Any] | None:
        """Claims of a valid token; None for other issuers' and for what is no signed token."""
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
            raise Unauthenticated(f"the token is refused: {type(error).__name__}") from None
        return found

    def _algorithm(self, header: Mapping[str, Any], key: jwt.PyJWK) -> str:
        """The token's algorithm, if it is allowed and the key is made for it."""
        algorithm = header.get("alg")
        if not isinstance(algorithm, str) or algorithm not in self._algorithms:
            raise Unauthenticated("the token's algorithm is not allowed")
        if key.key_type != _FAMILIES[algorithm[:2]]:
            raise Unauthenticated("the token's algorithm is not one of its key's")
        return algorithm


def _kid(header: Mapping[str, Any]) -> str | None:
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise Unauthenticated("the token's key id is no text")
    return kid
