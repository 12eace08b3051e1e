"""Cloud keys that a test may rotate at any time."""

from __future__ import annotations

from docpreview_gateway.upstream.wire.signing import Credentials

SECRET_KEY = "EXAMPLEsecretKEY00000000000000000"


class FakeCredentials:
    """A `CredentialsSource` that reads from `sets`, and `TokenSecrets` with their keys and those of `replaced`."""

    def __init__(self, **sets: Credentials) -> None:
        self.sets = sets or {"main": Credentials("example-secret-id", SECRET_KEY)}
        self.replaced: tuple[str, ...] = ()

    def credentials(self, name: str) -> Credentials:
        return self.sets[name]

    def secret_keys(self, name: str) -> tuple[str, ...]:
        return (self.sets[name].secret_key, *self.replaced)
