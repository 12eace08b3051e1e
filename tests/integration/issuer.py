"""A JWT issuer: its keys, its JWKS, valid tokens and forged ones."""

from __future__ import annotations

import base64
import hmac
import json
import time
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

ISSUER = "https://idp.corp.example"
AUDIENCE = "docpreview"


def b64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


class Issuer:
    """An issuer with keys by their ids; its tokens are valid unless a test changes them."""

    def __init__(self, *kids: str) -> None:
        self.keys: dict[str, Any] = {
            kid: rsa.generate_private_key(65537, 2048)
            if kid.startswith("rsa")
            else ec.generate_private_key(ec.SECP256R1())
            for kid in kids or ("rsa1", "ec1")
        }

    def jwks(self) -> str:
        """The JWKS: the public keys, and keys that must never be used for tokens."""
        keys = []
        for kid, key in self.keys.items():
            algorithm: Any = jwt.algorithms.RSAAlgorithm if kid.startswith("rsa") else jwt.algorithms.ECAlgorithm
            keys.append(json.loads(algorithm.to_jwk(key.public_key())) | {"kid": kid, "use": "sig"})
        keys.append({"kty": "oct", "kid": "oct1", "k": b64(b"not so secret")})
        keys.append({**keys[0], "kid": "enc1", "use": "enc"})
        return json.dumps({"keys": keys})

    def pem(self, kid: str) -> bytes:
        """A public key as PEM, which attackers know too."""
        pem: bytes = self.keys[kid].public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        return pem

    def claims(self, **changes: Any) -> dict[str, Any]:
        """Claims of a valid token, with changes; None removes a claim."""
        now = int(time.time())  # noqa: TID251 - PyJWT reads the clock itself
        claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "svc-one", "iat": now, "exp": now + 600} | changes
        return {name: value for name, value in claims.items() if value is not None}

    def token(self, kid: str | None = "rsa1", *, key: Any = None, algorithm: str = "", **changes: Any) -> str:
        """A token signed by the key of this id, or by `key` under that id."""
        chosen = key or self.keys[kid or "rsa1"]
        algorithm = algorithm or ("RS256" if (kid or "rsa").startswith("rsa") else "ES256")
        headers = {"kid": kid} if kid is not None else {}
        return jwt.encode(self.claims(**changes), chosen, algorithm, headers)

    def forged(
        self, header: dict[str, Any], signature: bytes | None = None, *, secret: bytes = b"", **changes: Any
    ) -> str:
        """A forged token: any header, an HMAC by any secret, or any bytes as its signature."""
        signed = f"{b64(json.dumps(header).encode())}.{b64(json.dumps(self.claims(**changes)).encode())}"
        found = hmac.digest(secret, signed.encode(), "sha256") if signature is None else signature
        return f"{signed}.{b64(found)}"


def stranger_rsa() -> rsa.RSAPrivateKey:
    """A key that belongs to no issuer."""
    return rsa.generate_private_key(65537, 2048)


def stranger_ed25519() -> ed25519.Ed25519PrivateKey:
    """A key that belongs to no issuer."""
    return ed25519.Ed25519PrivateKey.generate()
