"""Authentication of callers, TLS, the cloud's keys and the policy, kept up to date while their files change."""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import structlog

from docpreview_gateway.model.callers import ANONYMOUS
from docpreview_gateway.upstream.cloud_clock import elapsed
from docpreview_gateway.upstream.credential_files import CredentialFileError, load_credentials
from docpreview_gateway.wiring.file_stamp import file_stamp
from docpreview_gateway.wiring.reloading import InvalidFileError, Loaded, Reloading, Watched

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping
    from pathlib import Path

    import grpc
    from jwt import PyJWK

    from docpreview_gateway.access.authentication import Authenticator
    from docpreview_gateway.access.client_certificates import Revoked
    from docpreview_gateway.access.directory import Directory
    from docpreview_gateway.access.jwt_verifier import JwksKeys, JwtVerifier
    from docpreview_gateway.access.ports import AccessTelemetry
    from docpreview_gateway.access.tls_files import TlsMaterial
    from docpreview_gateway.model.call import Clock
    from docpreview_gateway.model.callers import Caller
    from docpreview_gateway.model.webhooks import WebhookTarget
    from docpreview_gateway.settings.access import JwtSettings, TlsSettings
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.upstream.wire.signing import Credentials

CHECK_SECONDS = 1.0
"""Interval of checks of the files; a change counts after one to two of them."""

KEYS_SECONDS = 600.0
"""Interval of fetches of an issuer's keys."""

REPLACED_KEYS = 2
"""Replaced secret keys for which page tokens stay valid."""

MOST_NAMED = 10
"""Names of callers in a log line."""

log = structlog.get_logger("docpreview_gateway.access")


class HeldCredentials:
    """The ports `CredentialsSource` and `TokenSecrets`: the keys of the cloud, from the settings and from files."""

    def __init__(self) -> None:
        self._sets: dict[str, Credentials] = {}
        self._secret_keys: dict[str, tuple[str, ...]] = {}

    def replace(self, name: str, credentials: Credentials) -> None:
        """Replace the credential set of this name for requests that are signed from now on."""
        self._sets[name] = credentials
        known = dict.fromkeys((credentials.secret_key, *self._secret_keys.get(name, ())))
        self._secret_keys[name] = tuple(known)[: 1 + REPLACED_KEYS]

    def credentials(self, name: str) -> Credentials:
        """The credential set of this name, which the settings have checked to exist."""
        return self._sets[name]

    def secret_keys(self, name: str) -> tuple[str, ...]:
        """The secret key of the set of this name, then the last ones that it replaced, newest first."""
        return self._secret_keys[name]


class Access:
    """Authentication, TLS and credentials as the settings say, their files reloaded by `reloading`.

    Every method raises InvalidFileError for a file with which the gateway cannot start.
    """

    def __init__(
        self, settings: Settings, clock: Clock, telemetry: AccessTelemetry, reloading: Reloading | None = None
    ) -> None:
        self._settings = settings
        self._clock = clock
        self._telemetry = telemetry
        self._fetched: list[JwksKeys] = []
        self._authenticator: Authenticator | None = None
        self.reloading = reloading or Reloading(telemetry, file_stamp)

    def cloud_credentials(self) -> HeldCredentials:
        """The key pairs for the cloud."""
        held = HeldCredentials()
        for name, found in self._settings.credentials.items():
            if found.file is None:
                held.replace(name, found.credentials())
            else:
                load = partial(_cloud_keys, name, found.file)
                self.reloading.add(Watched("credentials", [found.file], load, partial(held.replace, name)))
        return held

    def authenticator(self) -> Authenticator | None:
        """Authentication by the policy; None without a policy."""
        path = self._settings.policy.file
        if path is None:
            return None
        # Imported only with a policy.
        from docpreview_gateway.access.authentication import Authenticator  # noqa: PLC0415
        from docpreview_gateway.access.client_certificates import ClientCertificates  # noqa: PLC0415
        from docpreview_gateway.access.directory import Directory  # noqa: PLC0415

        tls = self._settings.tls
        certificates = ClientCertificates() if tls.client_ca else None
        if certificates is not None and tls.client_ca is not None and tls.client_crl is not None:
            load = partial(_revoked, tls.client_crl, tls.client_ca)
            self.reloading.add(Watched("revocations", [tls.client_crl, tls.client_ca], load, certificates.revoke))
        self._authenticator = authenticator = Authenticator(
            Directory(),
            certificates=certificates,
            verifiers=[self._verifier(found) for found in _issuers(self._settings)],
            clock=self._clock,
        )
        load_policy = partial(load_directory, self._settings)
        self.reloading.add(Watched("policy", [path], load_policy, authenticator.replace, self._changed_callers))
        return authenticator

    def _changed_callers(self, directory: Directory) -> dict[str, object]:
        """What the log says of a new policy: the number of its callers, and the names that come and go."""
        before, now = {caller.name for caller in self.callers()}, set(directory.callers)
        changed = {"added": _some(now - before), "removed": _some(before - now)}
        return {"callers": len(now), **{what: names for what, names in changed.items() if names}}

    def caller_names(self) -> tuple[str, ...]:
        """Names of all callers that the policy knows now, and of the one without a policy."""
        return (ANONYMOUS.name, *(caller.name for caller in self.callers()))

    def callers(self) -> tuple[Caller, ...]:
        """All callers that the policy knows now, or without a policy the anonymous one."""
        if self._authenticator is None:
            return (self._settings.limits.anonymous.caller(ANONYMOUS.name),)
        return self._authenticator.callers()

    def webhooks(self) -> Mapping[str, WebhookTarget]:
        """The webhook targets that the policy has now, by name; without a policy there are none."""
        return {} if self._authenticator is None else self._authenticator.webhooks()

    def server_credentials(self) -> grpc.ServerCredentials | None:
        """The server's certificate and key; None: no TLS, or that of the edge, whose files are watched all the same."""
        tls = self._settings.tls
        if tls.certificate is None:
            return None
        from docpreview_gateway.access.tls_files import TlsCredentials  # noqa: PLC0415

        load = partial(tls_material, tls)
        credentials = None if self._settings.edge.listen else TlsCredentials(load())

        def take(material: TlsMaterial) -> None:
            if credentials is not None:
                credentials.replace(material)
            elif self._settings.edge.folder is not None:
                self._tell_edge(self._settings.edge.folder)
            self._telemetry.certificate_ends(material.not_after)

        paths = [path for path in (tls.certificate, tls.key, tls.client_ca) if path is not None]
        self.reloading.add(Watched("certificate", paths, load, take))
        return None if credentials is None else credentials.credentials()

    def _tell_edge(self, folder: Path) -> None:
        from docpreview_gateway.wiring import edge_files  # noqa: PLC0415

        try:
            edge_files.name_again(self._settings, folder)
        except OSError as error:
            log.warning("the edge is not told of new certificates", folder=str(folder), why=error.strerror)

    async def refresh_keys(self) -> None:
        """Fetch the issuers' keys. After a failure, which `_fetch_keys` reports, the old keys stay in use."""
        if not self._fetched:
            return  # and do not import pyjwt, which takes 8 MiB
        from docpreview_gateway.access.jwks_http import FetchError  # noqa: PLC0415
        from docpreview_gateway.access.jwt_verifier import KeysError  # noqa: PLC0415

        for keys in self._fetched:
            with suppress(FetchError, KeysError):
                await keys.refresh()

    def _keys_changed(self) -> None:
        if self._authenticator is not None:
            self._authenticator.forget()

    def _verifier(self, settings: JwtSettings) -> JwtVerifier:
        from docpreview_gateway.access.jwt_verifier import JwksKeys, JwtVerifier  # noqa: PLC0415

        if settings.jwks_file is not None:
            keys = JwksKeys(None, elapsed=elapsed, changed=self._keys_changed)
            load = partial(_jwks, settings.jwks_file)
            self.reloading.add(Watched("jwks", [settings.jwks_file], load, keys.replace))
        else:
            keys = JwksKeys(
                partial(self._fetch_keys, settings.issuer, str(settings.jwks_url)),
                elapsed=elapsed,
                changed=self._keys_changed,
            )
            self._fetched.append(keys)
        return JwtVerifier(
            keys, issuer=settings.issuer, audience=settings.audience, algorithms=tuple(settings.algorithms)
        )

    async def _fetch_keys(self, issuer: str, url: str) -> dict[str, PyJWK]:
        """The keys of an issuer. A failure is counted and logged, here because tokens cause fetches too."""
        from docpreview_gateway.access import jwks_http  # noqa: PLC0415
        from docpreview_gateway.access.jwt_verifier import KeysError, parse_keys  # noqa: PLC0415

        try:
            keys = parse_keys(await jwks_http.fetch(url))
        except (jwks_http.FetchError, KeysError) as error:
            invalid = isinstance(error, KeysError)
            self._telemetry.reloaded("jwks", "invalid" if invalid else "unreachable")
            if invalid:
                self.reloading.refusals.report("jwks", url, refused=True)
            log.warning("keys of an issuer not fetched, the old ones stay in use", issuer=issuer, why=str(error))
            raise
        self._telemetry.reloaded("jwks", "ok")
        self.reloading.refusals.report("jwks", url, refused=False)
        return keys


def _some(names: Collection[str]) -> list[str]:
    """The first names, and how many more there are."""
    first, rest = sorted(names)[:MOST_NAMED], len(names) - MOST_NAMED
    return [*first, f"and {rest} more"] if rest > 0 else first


class _Checking(Reloading):
    """Loads each file once, and keeps the mistakes."""

    def __init__(self, telemetry: AccessTelemetry) -> None:
        super().__init__(telemetry, file_stamp)
        self.mistakes: list[str] = []

    def add(self, watched: Watched[Loaded]) -> None:
        """Load now."""
        try:
            super().add(watched)
        except InvalidFileError as error:
            self.mistakes += error.problems


def file_problems(settings: Settings, clock: Clock, telemetry: AccessTelemetry) -> list[str]:
    """The mistakes in all files that the settings name, with which the gateway would not start."""
    checking = _Checking(telemetry)
    access = Access(settings, clock, telemetry, checking)
    access.cloud_credentials()
    access.authenticator()
    try:
        access.server_credentials()
    except InvalidFileError as error:
        checking.mistakes += error.problems
    return checking.mistakes


def load_directory(settings: Settings) -> Directory:
    """The directory of callers from the policy file of the settings. InvalidFileError with every mistake."""
    from docpreview_gateway.settings.policy_file import PolicyError, Surroundings, load_policy  # noqa: PLC0415

    if settings.policy.file is None:
        raise InvalidFileError("policy.file: is not set")
    surroundings = Surroundings(
        buckets=frozenset(bucket.name for bucket in settings.buckets),
        issuers=frozenset(found.issuer for found in _issuers(settings)),
        client_certificates=settings.tls.client_ca is not None,
    )
    path = settings.policy.file
    try:
        return load_policy(path, surroundings)
    except PolicyError as error:
        raise InvalidFileError(*(f"policy.file: {path}: {problem}" for problem in error.problems)) from None


def _issuers(settings: Settings) -> tuple[JwtSettings, ...]:
    return () if settings.auth == "insecure" else settings.auth.jwt


def _cloud_keys(name: str, path: Path) -> Credentials:
    try:
        return load_credentials(path)
    except CredentialFileError as error:
        raise InvalidFileError(f"credentials.{name}.file: {error}") from None


def tls_material(settings: TlsSettings) -> TlsMaterial:
    """Certificate, key and client CA from their files. InvalidFileError with the file."""
    from docpreview_gateway.access.tls_files import TlsFilesError, load_tls  # noqa: PLC0415

    if settings.certificate is None or settings.key is None:
        raise InvalidFileError("tls: certificate and key are not set")
    try:
        return load_tls(settings.certificate, settings.key, settings.client_ca)
    except TlsFilesError as error:
        raise InvalidFileError(f"tls.{error.setting}: {error}") from None


def _revoked(path: Path, client_ca: Path) -> Revoked:
    from docpreview_gateway.access.client_certificates import RevocationsError, load_revoked  # noqa: PLC0415

    try:
        return load_revoked(path, client_ca)
    except RevocationsError as error:
        raise InvalidFileError(f"tls.client_crl: {error}") from None


def _jwks(path: Path) -> dict[str, PyJWK]:
    from docpreview_gateway.access.jwt_verifier import KeysError, parse_keys  # noqa: PLC0415

    try:
        return parse_keys(path.read_bytes())
    except OSError as error:
        raise InvalidFileError(f"auth.jwt.jwks_file: {path}: {error.strerror}") from None
    except KeysError as error:
        raise InvalidFileError(f"auth.jwt.jwks_file: {path}: {error}") from None
