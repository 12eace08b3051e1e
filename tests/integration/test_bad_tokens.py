"""Invalid tokens over real sockets: none is accepted, and valid ones still are."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import TYPE_CHECKING, Any

import grpc
import pytest
import structlog

from docpreview_emulator import Emulator
from docpreview_gateway.access import tokens
from docpreview_gateway.settings.access import AuthSettings, JwtSettings, PolicySettings
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import settings
from tests.integration.identity import Policy, bearer, caller, get
from tests.integration.issuer import AUDIENCE, ISSUER, Issuer, b64, stranger_ed25519, stranger_rsa

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable
    from pathlib import Path

C = grpc.StatusCode


class Bench:
    """A gateway with static tokens and a JWT issuer, and everything that an attacker can know."""

    def __init__(self, folder: Path) -> None:
        self.issuer = Issuer()
        self.foreign = Issuer()
        self.folder = folder
        self.policy = Policy(folder / "policy.yaml")
        self.static = self.policy.add("static")
        self.removed = self.policy.add("removed")
        del self.policy.callers["removed"]
        claim = {"issuer": ISSUER, "value": "svc-one"}
        role = {"issuer": ISSUER, "claim": "role", "value": "admin"}
        self.policy.callers["one"] = caller([{"jwt": claim}])
        self.policy.callers["two"] = caller([{"jwt": role}])
        self.policy.write()
        self.jwks = folder / "jwks.json"
        self.jwks.write_text(self.issuer.jwks())

    def gateway(self, emulator: Emulator) -> Gateway:
        issuer = JwtSettings(issuer=ISSUER, audience=AUDIENCE, jwks_file=self.jwks)
        return Gateway(
            settings(emulator, policy=PolicySettings(file=self.policy.path), auth=AuthSettings(jwt=(issuer,)))
        )

    def of_static(self, change: Callable[[str, str], str]) -> str:
        """The valid static token, with id and secret changed."""
        parts = tokens.split(self.static)
        assert parts is not None
        return change(*parts)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    """One set of keys for all tests, since generating them takes a while."""
    return Bench(tmp_path_factory.mktemp("tokens"))


@pytest.fixture
async def channel(bench: Bench) -> AsyncIterator[grpc.aio.Channel]:
    """A channel to the gateway."""
    async with (
        Emulator() as emulator,
        bench.gateway(emulator) as gateway,
        grpc.aio.insecure_channel(f"127.0.0.1:{gateway.port}") as made,
    ):
        yield made


GOOD: dict[str, Callable[[Bench], str]] = {
    "static": lambda b: b.static,
    "rsa": lambda b: b.issuer.token(),
    "ec": lambda b: b.issuer.token("ec1"),
    "several audiences": lambda b: b.issuer.token(aud=["other", AUDIENCE]),
    "another claim": lambda b: b.issuer.token(sub="someone", role="admin"),
}


def hmac(b: Bench, algorithm: str, kid: str, secret: bytes) -> str:
    """A token signed by HMAC with a secret, under the id of a public key (algorithm confusion)."""
    return b.issuer.forged({"alg": algorithm, "kid": kid}, secret=secret)


def tampered(token: str) -> str:
    """The token with another caller's claims under the old signature."""
    head, body, signature = token.split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=="))
    return f"{head}.{b64(json.dumps(claims | {'role': 'admin'}).encode())}.{signature}"


BAD: dict[str, Callable[[Bench], str]] = {
    # Static tokens.
    "static: another secret": lambda b: b.of_static(lambda i, s: f"dpt_{i}_{s[:-2]}{'AA' if s[-2:] != 'AA' else 'BB'}"),
    "static: another id": lambda b: b.of_static(lambda _, s: f"dpt_{'b' * 16}_{s}"),
    "static: id of none, secret of none": lambda _: f"dpt_{'a' * 16}_{'A' * 43}",
    "static: upper case": lambda b: b.static.upper(),
    "static: cut": lambda b: b.static[:-1],
    "static: longer": lambda b: b.static + "A",
    "static: padded": lambda b: b.static + "=",
    "static: only its id": lambda b: b.of_static(lambda i, _: f"dpt_{i}_"),
    "static: only its secret": lambda b: b.of_static(lambda _, s: s),
    "static: its hash": lambda b: b.policy.callers["static"]["identities"][0]["token"],
    "static: of a removed caller": lambda b: b.removed,
    "static: another prefix": lambda b: b.static.replace("dpt_", "dpx_"),
    # Forged signatures.
    "alg none": lambda b: b.issuer.forged({"alg": "none", "kid": "rsa1"}, b""),
    "alg None": lambda b: b.issuer.forged({"alg": "None", "kid": "rsa1"}, b""),
    "alg NONE": lambda b: b.issuer.forged({"alg": "NONE", "kid": "rsa1"}, b"x"),
    "alg missing": lambda b: b.issuer.forged({"kid": "rsa1"}, b""),
    "alg null": lambda b: b.issuer.forged({"alg": None, "kid": "rsa1"}, b""),
    "alg list": lambda b: b.issuer.forged({"alg": ["none", "RS256"], "kid": "rsa1"}, b""),
    "HMAC by the public RSA key": lambda b: b.issuer.forged(
        {"alg": "HS256", "kid": "rsa1"}, secret=b.issuer.pem("rsa1")
    ),
    "HMAC by the public EC key": lambda b: hmac(b, "HS256", "ec1", b.issuer.pem("ec1")),
    "HMAC by the key set's own secret": lambda b: b.issuer.forged(
        {"alg": "HS256", "kid": "oct1"}, secret=b"not so secret"
    ),
    "HMAC by nothing": lambda b: hmac(b, "HS256", "rsa1", b""),
    "HMAC that claims to be RSA": lambda b: b.issuer.forged(
        {"alg": "RS256", "kid": "rsa1"}, secret=b.issuer.pem("rsa1")
    ),
    "RSA that claims a curve's key": lambda b: b.issuer.token("ec1", key=b.issuer.keys["rsa1"], algorithm="RS256"),
    "curve that claims RSA's key": lambda b: b.issuer.token("rsa1", key=b.issuer.keys["ec1"], algorithm="ES256"),
    "algorithm that is not listed: RS512": lambda b: b.issuer.token(algorithm="RS512"),
    "algorithm that is not listed: PS256": lambda b: b.issuer.token(algorithm="PS256"),
    "algorithm that is not listed: EdDSA": lambda b: b.issuer.token("ec1", key=stranger_ed25519(), algorithm="EdDSA"),
    "a stranger's key": lambda b: b.issuer.token(key=stranger_rsa()),
    "another issuer's key of the same id": lambda b: b.foreign.token(),
    "a key for encryption": lambda b: b.issuer.token("enc1", key=b.issuer.keys["rsa1"], algorithm="RS256"),
    "signature of another token": lambda b: tampered(b.issuer.token()),
    "signature of zeros": lambda b: b.issuer.forged({"alg": "RS256", "kid": "rsa1"}, bytes(256)),
    "signature of zeros on a curve": lambda b: b.issuer.forged({"alg": "ES256", "kid": "ec1"}, bytes(64)),
    "signature empty": lambda b: b.issuer.forged({"alg": "RS256", "kid": "rsa1"}, b""),
    "no signature part": lambda b: b.issuer.token().rpartition(".")[0],
    # Keys that the token brings or names.
    "kid missing": lambda b: b.issuer.token(None),
    "kid unknown": lambda b: b.issuer.token("rsa9", key=b.issuer.keys["rsa1"], algorithm="RS256"),
    "kid path": lambda b: b.issuer.token("../../etc/passwd", key=b.issuer.keys["rsa1"], algorithm="RS256"),
    "kid /dev/null": lambda b: b.issuer.forged({"alg": "HS256", "kid": "/dev/null"}, secret=b""),
    "kid SQL": lambda b: b.issuer.token("x' UNION SELECT 'k", key=b.issuer.keys["rsa1"], algorithm="RS256"),
    "kid number": lambda b: b.issuer.forged({"alg": "RS256", "kid": 1}, b"x"),
    "kid null": lambda b: b.issuer.forged({"alg": "RS256", "kid": None}, b"x"),
    "jku": lambda b: b.issuer.forged({"alg": "RS256", "kid": "x", "jku": "http://127.0.0.1:1/jwks"}, b"x"),
    "jwk in the header": lambda b: b.issuer.forged(
        {"alg": "HS256", "jwk": {"kty": "oct", "k": b64(b"mine")}}, secret=b"mine"
    ),
    "x5u": lambda b: b.issuer.forged({"alg": "RS256", "kid": "x", "x5u": "http://127.0.0.1:1/cert"}, b"x"),
    "crit that is unknown": lambda b: b.issuer.forged({"alg": "RS256", "kid": "rsa1", "crit": ["x"], "x": 1}, b"x"),
    # Claims.
    "expired": lambda b: b.issuer.token(exp=1_700_000_000),
    "no expiry": lambda b: b.issuer.token(exp=None),
    "expiry as a text": lambda b: b.issuer.forged({"alg": "RS256", "kid": "rsa1"}, b"x", exp="never"),
    "not yet valid": lambda b: b.issuer.token(nbf=4_000_000_000),
    "issued in the future": lambda b: b.issuer.token(iat=4_000_000_000),
    "another audience": lambda b: b.issuer.token(aud="other"),
    "no audience": lambda b: b.issuer.token(aud=None),
    "an audience that begins alike": lambda b: b.issuer.token(aud=AUDIENCE + "2"),
    "another issuer": lambda b: b.issuer.token(iss="https://evil.example"),
    "no issuer": lambda b: b.issuer.token(iss=None),
    "issuer with a slash": lambda b: b.issuer.token(iss=ISSUER + "/"),
    "unknown subject": lambda b: b.issuer.token(sub="svc-unknown"),
    "no subject": lambda b: b.issuer.token(sub=None),
    "subject in another case": lambda b: b.issuer.token(sub="SVC-ONE"),
    "claims of two callers": lambda b: b.issuer.token(role="admin"),
    # No tokens at all.
    "words": lambda _: "hello",
    "dots": lambda _: "..",
    "a JSON object": lambda _: "e30.e30.e30",
    "a large one": lambda _: "a" * 9000,
}

RAW: dict[str, Callable[[Bench], Any]] = {
    "none": lambda _: (),
    "twice": lambda b: bearer(b.static) * 2,
    "a good and a bad one": lambda b: (*bearer(b.static), *bearer("x")),
    "a bad and a good one": lambda b: (*bearer("x"), *bearer(b.static)),
    "no scheme": lambda b: (("authorization", b.static),),
    "basic": lambda b: (("authorization", "Basic " + base64.b64encode(b.static.encode()).decode()),),
    "bearer only": lambda _: (("authorization", "Bearer"),),
    "empty bearer": lambda _: (("authorization", "Bearer "),),
    "two tokens in one": lambda b: (("authorization", f"Bearer {b.static}, Bearer {b.static}"),),
    "token and more": lambda b: (("authorization", f"Bearer {b.static} x"),),
    "in another field": lambda b: (("x-authorization", f"Bearer {b.static}"),),
    "binary": lambda b: (("authorization-bin", b.static.encode()),),
    "as a forwarded identity": lambda _: (("x-forwarded-client-cert", "URI=spiffe://corp.example/one"),),
    "a caller's name": lambda _: (("x-caller", "one"), ("caller", "one")),
}


async def test_every_valid_token_is_accepted(bench: Bench, channel: grpc.aio.Channel) -> None:
    """Baseline for the refusals below."""
    for name, make in GOOD.items():
        token = make(bench)
        for _ in range(3):
            assert await get(channel, bearer(token)) == C.NOT_FOUND, name
        assert await get(channel, (("authorization", f"bearer {token}"),)) == C.NOT_FOUND, name


async def test_every_invalid_token_is_unauthenticated_and_never_logged(bench: Bench, channel: grpc.aio.Channel) -> None:
    """Each is refused on its first and second use."""
    assert len(BAD) + len(RAW) >= 75
    with structlog.testing.capture_logs() as logged:
        attempts = {name: make(bench) for name, make in RAW.items()}
        attempts |= {name: bearer(make(bench)) for name, make in BAD.items()}
        found = {name: [await get(channel, metadata) for _ in range(2)] for name, metadata in attempts.items()}
    assert {name: codes for name, codes in found.items() if codes != [C.UNAUTHENTICATED] * 2} == {}
    text = repr(logged)
    for secret in (bench.static, bench.removed, bench.of_static(lambda _, s: s)):
        assert secret not in text
    assert sum(entry["event"] == "unauthenticated" for entry in logged) == 2 * len(attempts)


async def test_added_keys_are_accepted_and_removed_keys_refused_within_seconds(
    bench: Bench, channel: grpc.aio.Channel
) -> None:
    """The JWKS file is re-read when it changes."""
    old, new = bench.issuer, Issuer("rsa2")
    remembered = bearer(old.token())
    assert await get(channel, remembered) == C.NOT_FOUND
    assert await get(channel, bearer(new.token("rsa2"))) == C.UNAUTHENTICATED
    bench.jwks.write_text(new.jwks())
    try:
        async with asyncio.timeout(10):
            while await get(channel, bearer(new.token("rsa2"))) != C.NOT_FOUND:  # noqa: ASYNC110 - a reload is not announced
                await asyncio.sleep(0.05)
        assert await get(channel, remembered) == C.UNAUTHENTICATED
    finally:
        bench.jwks.write_text(old.jwks())
