"""Rotation of keys, JWKS, tokens and policy under load: no call fails."""

from __future__ import annotations

import asyncio
import json
import time
from collections import Counter
from typing import TYPE_CHECKING

import grpc

from docpreview_emulator import Credential, Emulator
from docpreview_gateway.settings.access import AuthSettings, JwtSettings, PolicySettings
from docpreview_gateway.settings.sections import CredentialSettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import settings
from tests.integration.identity import Policy, bearer, caller, get
from tests.integration.issuer import AUDIENCE, ISSUER, Issuer

if TYPE_CHECKING:
    from pathlib import Path

PER_SECOND = 200
ROUNDS = 3


def replaced(path: Path, text: str) -> None:
    """Replace the file atomically."""
    new = path.with_suffix(".new")
    new.write_text(text)
    new.replace(path)


class Site:
    """Files of a gateway during rotation: two generations of each secret are valid."""

    def __init__(self, folder: Path) -> None:
        self.keys = folder / "cloud.json"
        self.jwks = folder / "jwks.json"
        self.policy = Policy(folder / "policy.yaml")
        # Generated beforehand, since that blocks the event loop for seconds.
        self.made = Issuer(*(f"rsa{number}" for number in range(ROUNDS + 1))).keys
        self.issuer = Issuer("ec0")
        self.issuer.keys = {"rsa0": self.made["rsa0"]}
        self.generation = 0
        self.credentials = [Credential("id-0", "key-0", "session-0")]
        self.write()

    def write(self) -> None:
        """Write the newest generation of each; the previous tokens stay valid."""
        newest, number = self.credentials[-1], self.generation
        pair = {"secret_id": newest.secret_id, "secret_key": newest.secret_key, "token": newest.token}
        replaced(self.keys, json.dumps(pair))
        replaced(self.jwks, self.issuer.jwks())
        self.policy.add(f"static{number}")
        for old in [name for name in self.policy.callers if name.startswith("static")][:-2]:
            del self.policy.callers[old]
        self.policy.callers["signed"] = caller([{"jwt": {"issuer": ISSUER, "value": "svc-one"}}])
        self.policy.write()

    def metadata(self, turn: int) -> tuple[tuple[str, str], ...]:
        """Metadata of a caller with the previous generation's token, static and JWT in turn."""
        if turn % 2:
            return bearer(self.policy.tokens[f"static{max(0, self.generation - 1)}"])
        return bearer(self.issuer.token(f"rsa{max(0, self.generation - 1)}", iat=1_700_000_000 + turn))

    def advance(self) -> None:
        self.generation += 1
        number = self.generation
        # The cloud accepts the old key pair for a while after the new one was made.
        self.credentials.append(Credential(f"id-{number}", f"key-{number}", f"session-{number}"))
        self.issuer.keys[f"rsa{number}"] = self.made[f"rsa{number}"]
        for old in list(self.issuer.keys)[:-2]:
            del self.issuer.keys[old]


async def test_rotation_under_load_fails_no_call(tmp_path: Path) -> None:
    """200 calls a second with both kinds of token, past the cache, while keys, JWKS, tokens and policy change."""
    site = Site(tmp_path)
    async with Emulator(credentials=site.credentials) as emulator:
        issuer = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks_file=site.jwks)
        configured = settings(
            emulator,
            credentials={"main": CredentialSettings(file=site.keys)},
            policy=PolicySettings(file=site.policy.path),
            auth=AuthSettings(jwt=(issuer,)),
        )
        async with (
            Gateway(configured) as gateway,
            grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as channel,
        ):
            load = Load(channel, site)
            running = asyncio.create_task(load.run())
            for number in range(1, ROUNDS + 1):
                await load.completes(50)
                site.advance()
                # All calls in flight use a generation that stays valid.
                await load.completes(0)
                emulator.credentials |= {found.secret_id: found for found in site.credentials}
                site.write()
                for what in ("policy", "jwks", "credentials"):
                    await _reloaded(gateway, what, number)
                # The generation before the last is no longer in use: it is revoked.
                await load.completes(50)
                for old in site.credentials[:-2]:
                    emulator.credentials.pop(old.secret_id, None)
            load.done = True
            await running
            used = {record.headers["authorization"].split("q-ak=")[1].split("&")[0] for record in emulator.requests}
    assert set(load.codes) == {grpc.StatusCode.NOT_FOUND}
    assert load.codes.total() > 100 * ROUNDS
    assert used == {f"id-{number}" for number in range(ROUNDS + 1)}


class Load:
    """Calls at a limited rate, and with a concurrency that a busy machine can answer."""

    def __init__(self, channel: grpc.aio.Channel, site: Site) -> None:
        self.codes: Counter[grpc.StatusCode] = Counter()
        self.done = False
        self._channel = channel
        self._site = site
        self._tasks: list[asyncio.Task[None]] = []
        self._room = asyncio.Semaphore(20)

    async def run(self) -> None:
        begin = time.monotonic()
        while not self.done:
            turn = len(self._tasks)
            await self._room.acquire()
            self._tasks.append(asyncio.create_task(self._call(turn)))
            await asyncio.sleep(max(0.0, begin + turn / PER_SECOND - time.monotonic()))
        await asyncio.gather(*self._tasks)

    async def completes(self, calls: int) -> None:
        """Wait until all started calls have ended, and `calls` more have started."""
        begun = len(self._tasks)
        while len(self._tasks) < begun + calls:  # noqa: ASYNC110 - calls are counted, not announced
            await asyncio.sleep(0.01)
        await asyncio.gather(*self._tasks[: begun + calls])

    async def _call(self, turn: int) -> None:
        try:
            self.codes[await get(self._channel, self._site.metadata(turn), job_id=f"j{turn}")] += 1
        finally:
            self._room.release()


async def _reloaded(gateway: Gateway, what: str, times: int) -> None:
    sample = {"file": what, "outcome": "ok"}
    async with asyncio.timeout(15):
        while gateway.registry.get_sample_value("docpreview_reloads_total", sample) != times:  # noqa: ASYNC110 - a metric
            await asyncio.sleep(0.02)
