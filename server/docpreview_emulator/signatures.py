"""Verification of q-sign signatures (COS XML, HMAC-SHA1). Pure: the clock and the known keys are arguments.

Written from the vendor's description (document 436/7778) and its SDKs, sharing no code with the gateway's signer, so
that a misreading in one is noticed by the other. Only listed headers and parameters are covered, as in the cloud; they
must be present.
"""

import hmac
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from hashlib import sha1
from urllib.parse import quote

from docpreview_emulator.errors import CloudError
from docpreview_emulator.hosts import without_port
from docpreview_emulator.model import Credential

Pairs = Sequence[tuple[str, str]]
_WINDOW = re.compile(r"([0-9]{1,20});([0-9]{1,20})")
_FIELDS = ("q-sign-algorithm", "q-ak", "q-sign-time", "q-key-time", "q-header-list", "q-url-param-list", "q-signature")


@dataclass(frozen=True, slots=True)
class Signable:
    """The parts of a request that a signature may cover, decoded; `authorization` is the header, if there was one."""

    method: str
    path: str
    params: Pairs
    headers: Pairs
    authorization: str | None


@dataclass(frozen=True, slots=True)
class Policy:
    """Input of the check: accepted keys by id, time, tolerance for a window in the future, names of token headers."""

    credentials: Mapping[str, Credential]
    now: float
    skew_tolerance: float
    token_headers: tuple[str, ...]


def verify(request: Signable, policy: Policy) -> Credential:
    """The credential that signed the request.

    Raises:
        CloudError: 403 (400 for ExpiredToken) with the code that the cloud would give.
    """
    fields = _read_fields(request)
    _check_window(fields["q-sign-time"], policy)
    _check_window(fields["q-key-time"], policy)
    credential = policy.credentials.get(fields["q-ak"])
    if credential is None:
        raise CloudError(403, "InvalidAccessKeyId", "The Access Key Id you provided does not exist in our records.")
    _check_token(request, credential, policy)
    if not any(hmac.compare_digest(fields["q-signature"], s) for s in _signatures(request, fields, credential)):
        raise CloudError(403, "SignatureDoesNotMatch", "The Signature you specified is invalid.")
    return credential


def _read_fields(request: Signable) -> dict[str, str]:
    """The seven q-* fields, from the `Authorization` header or else from the query (a presigned address).

    Addresses that the SDKs for Java and PHP sign have the whole of such a header in their parameter `sign`.
    """
    whole = request.authorization
    if whole is None:
        whole = next((value for name, value in request.params if name == "sign"), None)
    if whole is not None:
        parts = (part.partition("=") for part in whole.strip().split("&"))
        fields = {name.strip(): value for name, _, value in parts}
    else:
        fields = {name: value for name, value in request.params if name in _FIELDS}
    if not fields:
        raise CloudError(403, "MissingAuthorization", "The request is not signed.")
    missing = [name for name in _FIELDS if name not in fields]
    if missing or fields["q-sign-algorithm"] != "sha1":
        raise CloudError(403, "InvalidAuthorization", "The authorization is incomplete or not of algorithm sha1.")
    return fields


def _check_window(window: str, policy: Policy) -> None:
    match = _WINDOW.fullmatch(window)
    if match is None:
        raise CloudError(403, "InvalidAuthorization", "A time window of the signature is not <start>;<end>.")
    start, end = int(match[1]), int(match[2])
    if policy.now > end:
        raise CloudError(403, "AccessDenied", "Request has expired")
    if start > policy.now + policy.skew_tolerance:
        message = "The difference between the request time and the server time is too large."
        raise CloudError(403, "RequestTimeTooSkewed", message)


def _check_token(request: Signable, credential: Credential, policy: Policy) -> None:
    """Check that a temporary key comes with its token, which need not be signed: the Java and Node SDKs do not."""
    sent = {value for name, value in request.headers if name.lower() in policy.token_headers}
    sent |= {value for name, value in request.params if name.lower() in policy.token_headers}
    if sent != ({credential.token} if credential.token else set()):
        raise CloudError(403, "InvalidAccessKeyId", "The security token does not belong to this Access Key Id.")
    if credential.expires_at is not None and policy.now > credential.expires_at:
        raise CloudError(400, "ExpiredToken", "The security token has expired.")


def _signatures(request: Signable, fields: Mapping[str, str], credential: Credential) -> list[str]:
    """The expected signatures, one for each accepted form of the `Host` header.

    The vendor's Python SDK signs the host without its port although HTTP sends it with one; both are accepted.
    """
    params = _listed(request.params, fields["q-url-param-list"])
    forms = [request.headers, [(n, without_port(v) if n.lower() == "host" else v) for n, v in request.headers]]
    sign_key = _hmac(credential.secret_key, fields["q-key-time"])
    signatures = []
    for headers in forms:
        listed = _listed(headers, fields["q-header-list"])
        http_string = f"{request.method.lower()}\n{request.path}\n{params}\n{listed}\n"
        digest = sha1(http_string.encode(errors="surrogateescape"), usedforsecurity=False).hexdigest()
        signatures.append(_hmac(sign_key, f"sha1\n{fields['q-sign-time']}\n{digest}\n"))
    return signatures


def _listed(pairs: Pairs, names: str) -> str:
    """The listed pairs as `key=value` joined by `&`, keys encoded, lowered and sorted.

    Raises:
        CloudError: a listed name is not in the request.
    """
    wanted = {name.lower() for name in names.split(";") if name}
    encoded = [(_encode(name).lower(), _encode(value)) for name, value in pairs]
    found = sorted(pair for pair in encoded if pair[0] in wanted)
    if wanted != {name for name, _ in found}:
        raise CloudError(403, "SignatureDoesNotMatch", "A signed header or parameter is missing from the request.")
    return "&".join(f"{name}={value}" for name, value in found)


def _encode(text: str) -> str:
    return quote(text, safe="-_.~", errors="surrogateescape")


def _hmac(key: str, message: str) -> str:
    return hmac.new(key.encode(), message.encode(), sha1).hexdigest()
