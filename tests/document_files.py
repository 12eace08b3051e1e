"""Documents as programs write them: compound files and encrypted PDFs, made by hand."""

from __future__ import annotations

import hashlib
import struct
from typing import TYPE_CHECKING

from cryptography.hazmat.decrepit.ciphers.algorithms import ARC4
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

if TYPE_CHECKING:
    from collections.abc import Mapping

_SECTOR = 512
_FREE, _CHAIN_END, _TABLE = 0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFD


def compound_file(streams: Mapping[str, bytes], *, directory_last: bool = False) -> bytes:
    """A compound file (OLE) with these streams; its directory comes after them or before."""
    contents = [_padded(data, 9 * _SECTOR) for data in streams.values()]
    sizes = [len(data) // _SECTOR for data in contents]
    directory_size = -(-(len(streams) + 1) * 128 // _SECTOR)
    table_size = -(-(sum(sizes) + directory_size + 8) // 128)
    directory_at = table_size + (sum(sizes) if directory_last else 0)
    at = table_size + (0 if directory_last else directory_size)
    starts = []
    for size in sizes:
        starts.append(at)
        at += size
    table = [_FREE] * (128 * table_size)
    table[:table_size] = [_TABLE] * table_size
    for start, size in [*zip(starts, sizes, strict=True), (directory_at, directory_size)]:
        table[start : start + size] = [*range(start + 1, start + size), _CHAIN_END]
    entries = _entry("Root Entry", 5, _CHAIN_END, 0, child=1 if streams else _FREE)
    for number, (name, start, data) in enumerate(zip(streams, starts, contents, strict=True), 1):
        right = number + 1 if number < len(streams) else _FREE
        entries += _entry(name, 2, start, len(data), right=right)
    directory = entries.ljust(directory_size * _SECTOR, b"\0")
    header = bytes.fromhex("D0CF11E0A1B11AE1") + bytes(16) + struct.pack("<HHHHH", 0x3E, 3, 0xFFFE, 9, 6) + bytes(10)
    header += struct.pack("<IIIIIIIII", table_size, directory_at, 0, 4096, _CHAIN_END, 0, _CHAIN_END, 0, 0)[:36]
    header += struct.pack(f"<{table_size}I", *range(table_size))[4:] if table_size > 1 else b""
    header = header.ljust(_SECTOR, b"\xff")
    body = [directory, *contents] if not directory_last else [*contents, directory]
    return header + struct.pack(f"<{len(table)}I", *table) + b"".join(body)


def encrypted_office() -> bytes:
    """What Office writes for a docx, pptx or xlsx under a password ([MS-OFFCRYPTO] 2.3.4)."""
    return compound_file({"EncryptionInfo": b"\x04\0\x04\0", "EncryptedPackage": b"secret" * 2000})


def aes_pdf(password: bytes, revision: int) -> bytes:
    """A PDF without pages, encrypted with AES-256 by revision 5 or 6 of the standard security handler."""
    salt = b"saltsalt"
    digest = hashlib.sha256(password + salt).digest() if revision == 5 else _hash(password, salt)
    user = digest + salt + b"keysalt1"
    literal = user.replace(b"\\", b"\\\\").replace(b"(", b"\\(").replace(b")", b"\\)").replace(b"\r", b"\\r")
    encrypt = b"<</Filter/Standard/V 5/R %d/P -4/O(%s)/U(%s)>>" % (revision, b"o" * 48, literal)
    objects = b"1 0 obj<</Type/Catalog>>endobj\n2 0 obj%sendobj\n" % encrypt
    return b"%PDF-2.0\n" + objects + b"trailer<</Root 1 0 R/Encrypt 2 0 R/ID[<00><00>]>>\nstartxref\n0\n%%EOF"


def rc4_pdf(password: bytes, revision: int, *, metadata: bool = True) -> bytes:
    """A PDF without pages, encrypted with 128 bits by revision 3 or 4 of the standard security handler."""
    padding = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
    owner, file_id, permissions = bytes(range(32)), b"0123456789abcdef", -44
    key = (password + padding)[:32] + owner + permissions.to_bytes(4, "little", signed=True) + file_id
    key += b"" if metadata else b"\xff" * 4
    for _ in range(51):
        key = hashlib.md5(key, usedforsecurity=False).digest()
    user = hashlib.md5(padding + file_id, usedforsecurity=False).digest()
    for step in range(20):
        user = Cipher(ARC4(bytes(byte ^ step for byte in key)), None).encryptor().update(user)
    words = b"/V 2/Length 128" if revision == 3 else b"/V 4/CF<</StdCF<</CFM/AESV2/Length 16>>>>"
    words += b"" if metadata else b"/EncryptMetadata false"
    strings = owner.hex().encode(), (user + bytes(16)).hex().encode()
    encrypt = b"<</Filter/Standard%b/R %d/P %d/O<%b>/U<%b>>>" % (words, revision, permissions, *strings)
    trailer = b"trailer<</Encrypt 2 0 R/ID[<%b><00>]>>\nstartxref\n0\n%%%%EOF" % file_id.hex().encode()
    return b"%PDF-1.6\n2 0 obj" + encrypt + b"endobj\n" + trailer


def _hash(password: bytes, salt: bytes) -> bytes:
    key, step = hashlib.sha256(password + salt).digest(), 0
    while True:
        encryptor = Cipher(algorithms.AES(key[:16]), modes.CBC(key[16:32])).encryptor()
        block = encryptor.update((password + key) * 64)
        key = getattr(hashlib, ("sha256", "sha384", "sha512")[int.from_bytes(block[:16], "big") % 3])(block).digest()
        step += 1
        if step >= 64 and block[-1] <= step - 32:
            return bytes(key[:32])


def _padded(data: bytes, least: int) -> bytes:
    """As large as a stream must be that is not in the mini stream, in whole sectors."""
    size = max(len(data), least)
    return data.ljust(-(-size // _SECTOR) * _SECTOR, b"\0")


def _entry(name: str, kind: int, start: int, size: int, *, right: int = _FREE, child: int = _FREE) -> bytes:
    text = (name + "\0").encode("utf-16-le")
    links = struct.pack("<III", _FREE, right, child)
    return (
        text.ljust(64, b"\0")
        + struct.pack("<HBB", len(text), kind, 1)
        + links
        + bytes(36)
        + struct.pack("<IQ", start, size)
    )
