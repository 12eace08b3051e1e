"""Passwords of Office documents: which documents have one, and the decryption of PowerPoint's older format.

LibreOffice decrypts all other formats itself.
"""

import hashlib
import zipfile
from pathlib import Path

from docpreview_emulator.compound_files import MAGIC, CompoundFile

_MANIFEST = "META-INF/manifest.xml"
_MOST_MANIFEST_BYTES = 4 * 1024 * 1024

# [MS-DOC] 2.5.2, [MS-XLS] 2.4.117, [MS-PPT] 2.3.2
_WORD_FLAGS_AT, _WORD_ENCRYPTED = 10, 0x0100
_FILE_PASS, _RECORDS_BEFORE_IT = 0x002F, 8
_PLAIN_TOKEN, _ENCRYPTED_TOKEN = (0xE391C05F).to_bytes(4, "little"), (0xF3D1C4DF).to_bytes(4, "little")
_TOKEN = slice(12, 16)
_METAFILES, _METAFILE_HEADER_BYTES = {0xF01A, 0xF01B, 0xF01C}, 34
_SHORTEST_BITS = 40  # such keys are padded


def is_encrypted(source: Path) -> bool:
    """Whether a document of Office, OpenDocument or WPS is under a password; not, when it is too damaged to tell."""
    try:
        if zipfile.is_zipfile(source):
            return _is_encrypted_package(source)
        with source.open("rb") as file:
            if file.read(len(MAGIC)) != MAGIC:
                return False
        return _is_encrypted_compound(CompoundFile(source))
    except (ValueError, OSError, zipfile.BadZipFile, NotImplementedError, RuntimeError):
        return False


def _is_encrypted_package(source: Path) -> bool:
    """OpenDocument lists the encryption of its parts."""
    with zipfile.ZipFile(source) as package:
        if _MANIFEST not in package.namelist():
            return False
        with package.open(_MANIFEST) as manifest:
            return b"encryption-data" in manifest.read(_MOST_MANIFEST_BYTES)


def _is_encrypted_compound(file: CompoundFile) -> bool:
    if "EncryptedPackage" in file.names:
        return True
    if "WordDocument" in file.names:
        flags = file.read("WordDocument")[_WORD_FLAGS_AT:][:2]
        return bool(int.from_bytes(flags, "little") & _WORD_ENCRYPTED)
    if "Current User" in file.names:
        return file.read("Current User")[_TOKEN] == _ENCRYPTED_TOKEN
    return any(_has_file_pass(file.read(name)) for name in ("Workbook", "Book") if name in file.names)


def _has_file_pass(workbook: bytes) -> bool:
    """Whether one of the first records says that the others are encrypted."""
    at = 0
    for _ in range(_RECORDS_BEFORE_IT):
        kind, size = (int.from_bytes(workbook[start : start + 2], "little") for start in (at, at + 2))
        if kind == _FILE_PASS:
            return True
        at += 4 + size
    return False


def decrypt_presentation(source: Path, password: str, target: Path) -> bool:
    """Write a PowerPoint 97 presentation without its password; False: it is none, or the password is wrong."""
    try:
        file = CompoundFile(source)
        user = bytearray(file.read("Current User"))
        if user[_TOKEN] != _ENCRYPTED_TOKEN:
            return False
        presentation = _Presentation(bytearray(file.read("PowerPoint Document")), _number(user, 16))
        key = _Key.of(presentation.session, password)
        if key is None:
            return False
        presentation.decrypt(key)
        if "Pictures" in file.names:
            file.write("Pictures", _decrypted_pictures(file.read("Pictures"), key))
    except ValueError:
        return False
    user[_TOKEN] = _PLAIN_TOKEN
    file.write("Current User", bytes(user))
    file.write("PowerPoint Document", bytes(presentation.data))
    file.save(target)
    return True


def _decrypted_pictures(sealed: bytes, key: "_Key") -> bytes:
    """The pictures of a presentation one after the other, each field of each encrypted for itself ([MS-PPT] 2.3.7)."""
    opened = bytearray()

    def field(size: int) -> int:
        data = key.decrypted(0, sealed[len(opened) : len(opened) + size])
        opened.extend(data)
        return int.from_bytes(data[:4], "little")

    while len(opened) + 8 <= len(sealed):
        instance, kind, length = field(2) >> 4, field(2), field(4)
        end = min(len(opened) + length, len(sealed))
        for size in (16, 16) if instance % 2 else (16,):
            field(size)
        field(_METAFILE_HEADER_BYTES if kind in _METAFILES else 1)
        field(max(end - len(opened), 0))
    return bytes(opened) + sealed[len(opened) :]


class _Presentation:
    """The stream of a presentation: objects by number, which the directories of all edits list ([MS-PPT] 2.1.2)."""

    def __init__(self, data: bytearray, edit: int) -> None:
        self.data = data
        self._objects: dict[int, int] = {}
        self._session = _number(data, edit + 36)
        seen = set[int]()
        while edit and edit not in seen:
            seen.add(edit)
            self._read_directory(_number(data, edit + 20))
            edit = _number(data, edit + 16)
        if self._session not in self._objects:
            raise ValueError("the presentation does not say how it is encrypted")

    def _read_directory(self, start: int) -> None:
        at, end = start + 8, min(start + 8 + _number(self.data, start + 4), len(self.data))
        while at < end:
            run = _number(self.data, at)
            first, count = run & 0xFFFFF, run >> 20
            for number in range(count):
                self._objects.setdefault(first + number, _number(self.data, at + 4 + 4 * number))
            at += 4 + 4 * count

    @property
    def session(self) -> bytes:
        """How it is encrypted."""
        start = self._objects[self._session]
        return bytes(self.data[start + 8 : start + 8 + _number(self.data, start + 4)])

    def decrypt(self, key: "_Key") -> None:
        """Decrypt each object but the one that says how, in place."""
        for number, start in self._objects.items():
            if number != self._session:
                size = 8 + _number(key.decrypted(number, self.data[start : start + 8]), 4)
                self.data[start : start + size] = key.decrypted(number, self.data[start : start + size])


class _Key:
    """RC4 with a key for each block, from a password ([MS-OFFCRYPTO] 2.3.5)."""

    def __init__(self, password_hash: bytes, bits: int) -> None:
        self._hash = password_hash
        self._bits = bits

    @classmethod
    def of(cls, session: bytes, password: str) -> "_Key | None":
        """The key; None: the password is wrong."""
        verifier = 12 + _number(session, 8)
        salt, sealed = session[verifier + 4 : verifier + 20], session[verifier + 20 : verifier + 36]
        password_hash = hashlib.sha1(salt + password.encode("utf-16-le")).digest()  # noqa: S324 - the format's
        key = cls(password_hash, _number(session, 28) or _SHORTEST_BITS)
        opened = key.decrypted(0, sealed + session[verifier + 40 : verifier + 60])
        return key if hashlib.sha1(opened[:16]).digest() == opened[16:] else None  # noqa: S324

    def decrypted(self, block: int, data: bytes | bytearray) -> bytes:
        """The bytes of a block, from its beginning."""
        digest = hashlib.sha1(self._hash + block.to_bytes(4, "little")).digest()  # noqa: S324
        key = digest[: self._bits // 8].ljust(16 if self._bits == _SHORTEST_BITS else 0, b"\0")
        # Few documents need it, and each process would wait for it.
        from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4  # noqa: PLC0415
        from cryptography.hazmat.primitives.ciphers import Cipher  # noqa: PLC0415

        return Cipher(ARC4(key), mode=None).decryptor().update(bytes(data))


def _number(data: bytes | bytearray, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "little")
