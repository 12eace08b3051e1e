"""Passwords of documents on disk: encrypted under a key in the data directory that only the owner can read."""

import base64
import logging
from pathlib import Path
from typing import TYPE_CHECKING

from docpreview_emulator.errors import StorageError
from docpreview_emulator.private_files import create_private

if TYPE_CHECKING:
    from cryptography.fernet import Fernet

_log = logging.getLogger(__name__)
_KEY_BYTES = 32


class Passwords:
    """Seals passwords and opens them again. The key is made with the first password."""

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file
        self._key: Fernet | None = None

    def check(self) -> None:
        """Refuse a key that cannot be used, before the first password wants it.

        Raises:
            StorageError: the key is there, and cannot be read or is none.
        """
        if self._key_file.exists():
            try:
                usable = len(base64.urlsafe_b64decode(self._key_file.read_bytes())) == _KEY_BYTES
            except (OSError, ValueError) as error:
                raise self._unusable(error) from error
            if not usable:
                raise self._unusable(f"it does not have {_KEY_BYTES} bytes")

    def seal(self, password: str) -> str:
        """What is stored in place of a password; nothing for none.

        Raises:
            StorageError: the key cannot be read or written.
        """
        return self._cipher().encrypt(password.encode()).decode() if password else ""

    def open(self, sealed: str) -> str:
        """The password. It is empty when the key is another one: the data directory was copied without its key."""
        if not sealed:
            return ""
        from cryptography.fernet import InvalidToken  # noqa: PLC0415 - takes time to import, few need it

        try:
            return self._cipher().decrypt(sealed).decode()
        except InvalidToken:
            _log.warning("%s is not the key of a stored DocPassword, which is lost", self._key_file)
            return ""

    def _cipher(self) -> "Fernet":
        if self._key is None:
            from cryptography.fernet import Fernet  # noqa: PLC0415 - likewise

            try:
                if not self._key_file.exists():
                    with create_private(self._key_file) as file:
                        file.write(Fernet.generate_key())
                self._key = Fernet(self._key_file.read_bytes())
            except (OSError, ValueError) as error:
                raise self._unusable(error) from error
        return self._key

    def _unusable(self, why: object) -> StorageError:
        advice = "remove it, and passwords of stored jobs are lost"
        return StorageError(f"{self._key_file} is not a usable key ({why}): {advice}")
