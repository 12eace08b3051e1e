"""An issuer of signed tokens (JWT) on this machine, in place of a company's identity provider.

Of each of its keys the private half is in authorities/issuer/, the public half in secrets/jwks.json, which the gateway
reads.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import tempfile
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
    if name in _names():
        raise SystemExit(f"{name}: is there already, and tokens may be signed by it. Choose another name")
    if not PRIVATE.is_dir():
        PRIVATE.mkdir(mode=0o700)
        _as_folder(PRIVATE)
    key = ec.generate_private_key(ec.SECP256R1())
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    _write(PRIVATE / f"{name}.pem", key.private_bytes(*form))
    public = jwt.algorithms.ECAlgorithm.to_jwk(key.public_key(), as_dict=True)
    _publish([*_published(), {**public, "kid": name, "use": "sig", "alg": "ES256"}])


def end_key(name: str) -> None:
    """Take a key out of the JWKS: its tokens are refused from then on."""
    _known(name)
    others = [key for key in _published() if key["kid"] != name]
    if not others:
        raise SystemExit(
            f"{name}: is the only key, and the gateway reads no JWKS without one. First make another: new-key"
        )
    _publish(others)
    (PRIVATE / f"{name}.pem").unlink(missing_ok=True)


def token(subject: str, name: str, minutes: int) -> None:
    """Print a token of `subject`, signed by a key."""
    _known(name)
    now = int(time.time())  # noqa: TID251 - a program of its own
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": subject, "iat": now, "exp": now + 60 * minutes}
    print(jwt.encode(claims, (PRIVATE / f"{name}.pem").read_bytes(), "ES256", {"kid": name}), flush=True)


def _published() -> list[dict[str, Any]]:
    try:
        keys = json.loads(JWKS.read_text())["keys"] if JWKS.exists() else []
        return [{**key, "kid": key["kid"]} for key in keys]
    except (ValueError, KeyError, TypeError):
        raise SystemExit(f"{JWKS}: is no JWKS. Bring it back from where it is whole") from None


def _names() -> set[str]:
    return {path.stem for path in PRIVATE.glob("*.pem")} | {key["kid"] for key in _published()}


def _known(name: str) -> None:
    if name not in _names():
        raise SystemExit(
            f"{name}: is no key of this issuer. It has: {', '.join(sorted(_names())) or 'none, first new-key'}"
        )


def _publish(keys: list[dict[str, Any]]) -> None:
    _write(JWKS, json.dumps({"keys": keys}, indent=1).encode())


def _write(path: Path, content: bytes) -> None:
    """Replace a file at once: nobody reads half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as new:  # which only its owner can read
        new.write(content)
    _as_folder(Path(new.name))
    Path(new.name).replace(path)


def _as_folder(path: Path) -> None:
    """What root makes belongs to the owner of its folder, whom the gateway runs as."""
    if os.geteuid() == 0:
        shutil.chown(path, path.parent.stat().st_uid, path.parent.stat().st_gid)


def _key_name(given: str) -> str:
    if not re.fullmatch(r"\w[\w.-]*", given, re.ASCII):
        raise argparse.ArgumentTypeError(f"{given!r}: is no name of a key, which has letters, digits and . _ - only")
    return given


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    for command, text in (("new-key", new_key.__doc__), ("end-key", end_key.__doc__)):
        commands.add_parser(command, help=text).add_argument("key", type=_key_name, help="its name, such as 2026-11")
    of_token = commands.add_parser("token", help=token.__doc__)
    of_token.add_argument("subject", help="the caller: `value` of its identity in policy.yaml")
    of_token.add_argument("key", type=_key_name, help="name of the key that signs")
    of_token.add_argument("--minutes", type=int, default=60, help="how long it is valid")
    given = parser.parse_args()
    if not (PRIVATE.parent.is_dir() and JWKS.parent.is_dir()):
        raise SystemExit("first ./secrets.sh make")
    try:
        if given.command == "new-key":
            new_key(given.key)
        elif given.command == "end-key":
            end_key(given.key)
        else:
            token(given.subject, given.key, given.minutes)
    except OSError as error:
        raise SystemExit(f"{error.filename or 'standard output'}: {error.strerror}") from None


if __name__ == "__main__":
    main()
