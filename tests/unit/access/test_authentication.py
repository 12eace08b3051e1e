"""The cache of verified signed tokens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from docpreview_gateway.access.authentication import CACHED_TOKEN_SECONDS, Authenticator
from docpreview_gateway.access.directory import Directory
from docpreview_gateway.access.ports import Evidence
from docpreview_gateway.model.callers import Caller
from tests.fakes.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Mapping

ONE = Caller("one")
CALL = Evidence(("Bearer a.signed.token",), lambda: b"")


class Verifier:
    """An issuer whose tokens are valid for a day, and that counts what it verifies."""

    def __init__(self, clock: FakeClock) -> None:
        self.verified = 0
        self._until = clock.now() + 86400.0

    async def claims(self, _token: str) -> Mapping[str, Any]:
        self.verified += 1
        return {"exp": self._until}


class Everyone(Directory):
    """A directory in which every valid token is that of one caller."""

    def by_claims(self, _claims: Mapping[str, Any]) -> Caller:
        return ONE


@pytest.mark.parametrize(
    ("passed", "verified"),
    [(CACHED_TOKEN_SECONDS - 1, 1), (CACHED_TOKEN_SECONDS, 2), (-86400.0, 2)],
    ids=["at once", "a minute later", "after the clock was set back a day"],
)
async def test_a_verified_token_is_not_verified_again_for_a_minute(passed: float, verified: int) -> None:
    """Not for as long as a clock is set back."""
    clock = FakeClock()
    verifier = Verifier(clock)
    authenticator = Authenticator(Everyone({}), verifiers=[verifier], clock=clock)
    assert await authenticator.caller(CALL) is ONE
    clock.time += passed
    assert await authenticator.caller(CALL) is ONE
    assert verifier.verified == verified
