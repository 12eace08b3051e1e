"""An issuer of signed tokens (JWT) on this machine, in place of a company's identity provider.

Of each of its keys the private half is in authorities/issuer/, the public half in secrets/jwks.json, which the gateway
reads.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import time
from pathlib import Path
from typing import Any

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

ISSUER = "https://login.example.com"
AUDIENCE = "docpreview"
HERE = Path(__file__).parent
PRIVATE = HERE / "authorities" / "issuer"
JWKS = HERE / "secrets" / "jwks.json"


def new_key(name: str) -> None:
    """Make a key and publish its public half. Those that are there stay valid."""
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    PRIVATE.mkdir(mode=0o700, parents=True, exist_ok=True)
    _write(PRIVATE / f"{name}.pem", key.private_bytes(*form))
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    _publish([*_published(name), {**public, "kid": name, "use": "sig", "alg": "ES256"}])


def end_key(name: str) -> None:
    """Take a key out of the JWKS: its tokens are refused from then on."""
    _publish(_published(name))
    (PRIVATE / f"{name}.pem").unlink()


def token(subject: str, name: str, minutes: int) -> None:
    """Print a token of `subject`, signed by a key."""
    now = int(time.time())  # noqa: TID251 - a program of its own
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 60 * minutes}
    print(jwt.encode(claims, (PRIVATE / f"{name}.pem").read_bytes(), "ES256", {"kid": name}))


def _published(without: str) -> list[dict[str, Any]]:
    keys = json.loads(JWKS.read_text())["keys"] if JWKS.exists() else []
    return [key for key in keys if key["kid"] != without]


def _publish(keys: list[dict[str, Any]]) -> None:
    _write(JWKS, json.dumps({"keys": keys}, indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once: nobody reads half of it."""
    new = path.with_suffix(".new")
    new.write_bytes(content)
    new.chmod(0o600)
    if os.geteuid() == 0:  # then the gateway, as whose user the folder belongs to, must be able to read it
        shutil.chown(new, path.parent.stat().st_uid, path.parent.stat().st_gid)
    new.replace(path)


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (("new-key", new_key.__doc__), ("end-key", end_key.__doc__)):
        commands.add_parser(command, help=text).add_argument("key", help="its name, such as 2026-11")
    of_token = commands.add_parser("token", help=token.__doc__)
    of_token.add_argument("subject", help="the caller: `value` of its identity in policy.yaml")
    of_token.add_argument("key", help="name of the key that signs")
    of_token.add_argument("--minutes", type=int, default=60, help="how long it is valid")
    given = parser.parse_args()
    if given.command == "new-key":
        new_key(given.key)
    elif given.command == "end-key":
        end_key(given.key)
    else:
        token(given.subject, given.key, given.minutes)


if __name__ == "__main__":
    main()
