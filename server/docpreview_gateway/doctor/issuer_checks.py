"""Checks of the issuers of signed tokens: can their keys be fetched, and are they of a kind that is accepted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.doctor.diagnosis import Finding

if TYPE_CHECKING:
    from docpreview_gateway.settings.access import JwtSettings
    from docpreview_gateway.settings.loading import Settings

_KINDS = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}


async def issuer_findings(settings: Settings) -> list[Finding]:
    """A finding for each issuer whose keys are fetched; files are checked as files."""
    if settings.auth == "insecure":
        return []
    return [await _issuer(each) for each in settings.auth.jwt if each.jwks_url is not None]


async def _issuer(issuer: JwtSettings) -> Finding:
    from docpreview_gateway.access import jwks_http  # noqa: PLC0415 - pyjwt takes 8 MiB
    from docpreview_gateway.access.jwt_verifier import KeysError, parse_keys  # noqa: PLC0415

    url = str(issuer.jwks_url)
    try:
        keys = parse_keys(await jwks_http.fetch(url))
    except jwks_http.FetchError as error:
        todo = "correct auth.jwt.jwks_url, or let this machine reach it; until then tokens of this issuer are refused"
        return Finding("issuer", issuer.issuer, f"its keys cannot be fetched from {url}: {error}", todo)
    except KeysError as error:
        todo = "correct auth.jwt.jwks_url: the jwks_uri in the issuer's /.well-known/openid-configuration"
        return Finding("issuer", issuer.issuer, f"{url} has {error}", todo)
    kinds = {str(key.key_type) for key in keys.values()}
    if kinds.isdisjoint(_KINDS[algorithm[:2]] for algorithm in issuer.algorithms):
        what = f"its keys are of the kind {', '.join(sorted(kinds))}, with which none of auth.jwt.algorithms signs"
        return Finding("issuer", issuer.issuer, what, "add the issuer's algorithm to auth.jwt.algorithms")
    return Finding("issuer", issuer.issuer, f"{url} has {len(keys)} key{'s' * (len(keys) > 1)} for signatures")
