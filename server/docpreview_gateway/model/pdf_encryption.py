"""Whether a PDF needs a password to be opened, by its standard security handler (ISO 32000-2, 7.6.4).

Many PDFs are encrypted and open without a password, because only their permissions are restricted. So the empty
password is tried.
"""

from __future__ import annotations

import re
from hashlib import md5, sha256, sha384, sha512

_PADDING = bytes.fromhex("28BF4E5E4E758A4164004E56FFFA01082E2E00B6D0683E802F0CA9FE6453697A")
_REFERENCE = re.compile(rb"/Encrypt\s+(\d{1,10})\s+(\d{1,5})\s+R\b")
_DIRECT = re.compile(rb"/Encrypt\s*<<")
_DICTIONARY_BYTES = 4096
_ESCAPES = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"f": b"\f"}
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|\r\n|.)", re.DOTALL)
_REVISIONS = frozenset({2, 3, 4, 5, 6})
_AES_REVISION = 5


def needs_password(begin: bytes, end: bytes) -> bool:
    """Whether the empty password certainly does not open the document with this beginning and this end."""
    for piece in (end, begin):
        dictionary = _encryption(piece, begin, end)
        if dictionary is not None and re.search(rb"/Filter\s*/Standard\b", dictionary):
            return _refuses_empty(dictionary, _string(piece, rb"/ID\s*\[\s*") or b"")
    return False


def _encryption(piece: bytes, begin: bytes, end: bytes) -> bytes | None:
    """The dictionary that the trailer in this piece names, and what follows it."""
    if (direct := _DIRECT.search(piece)) is not None:
        return piece[direct.end() :][:_DICTIONARY_BYTES]
    reference = _REFERENCE.search(piece)
    if reference is None:
        return None
    head = re.compile(rb"(?<!\d)%d\s+%d\s+obj\b" % (int(reference[1]), int(reference[2])))
    for known in (end, begin):
        if (found := head.search(known)) is not None:
            return known[found.end() :][:_DICTIONARY_BYTES].partition(b"endobj")[0]
    return None


def _refuses_empty(dictionary: bytes, file_id: bytes) -> bool:
    revision, owner, user = _number(dictionary, rb"/R"), _string(dictionary, rb"/O\s*"), _string(dictionary, rb"/U\s*")
    if revision not in _REVISIONS or owner is None or user is None or len(user) < len(_PADDING):
        return False
    if revision >= _AES_REVISION:
        salt = user[32:40]
        digest = sha256(salt).digest() if revision == _AES_REVISION else _hash(salt)
        return digest != user[:32]
    return _user_entry(dictionary, revision, owner[:32], file_id) != user[: 32 if revision == 2 else 16]  # noqa: PLR2004


def _user_entry(dictionary: bytes, revision: int, owner: bytes, file_id: bytes) -> bytes:
    """What `/U` is with the empty password: algorithms 2, 4 and 5."""
    permissions = (_number(dictionary, rb"/P") or 0) & 0xFFFFFFFF
    seed = _PADDING + owner + permissions.to_bytes(4, "little") + file_id
    if revision > 3 and re.search(rb"/EncryptMetadata\s+false", dictionary):  # noqa: PLR2004
        seed += b"\xff\xff\xff\xff"
    size = _key_size(dictionary, revision)
    key = md5(seed, usedforsecurity=False).digest()[:size]
    if revision == 2:  # noqa: PLR2004
        return _rc4(key, _PADDING)
    for _ in range(50):
        key = md5(key, usedforsecurity=False).digest()[:size]
    entry = md5(_PADDING + file_id, usedforsecurity=False).digest()
    for step in range(20):
        entry = _rc4(bytes(byte ^ step for byte in key), entry)
    return entry


def _key_size(dictionary: bytes, revision: int) -> int:
    """Bytes of the key: revision 2 has 5, revision 4 has 16, revision 3 says how many bits."""
    if revision == 3:  # noqa: PLR2004
        return max(5, min((_number(dictionary, rb"/Length") or 40) // 8, 16))
    return 5 if revision == 2 else 16  # noqa: PLR2004


def _hash(salt: bytes) -> bytes:
    """Algorithm 2.B for the empty password."""
    # Imported at the first use: the package takes 6 MiB.
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes  # noqa: PLC0415

    key, step = sha256(salt).digest(), 0
    while True:
        encryptor = Cipher(algorithms.AES(key[:16]), modes.CBC(key[16:32])).encryptor()
        encrypted = encryptor.update(key * 64)
        key = (sha256, sha384, sha512)[sum(encrypted[:16]) % 3](encrypted).digest()
        step += 1
        if step >= 64 and encrypted[-1] <= step - 32:  # noqa: PLR2004
            return key[:32]


def _rc4(key: bytes, data: bytes) -> bytes:
    """The cipher of revisions 2 to 4. The library's takes fewer lengths of keys, and is about to be removed from it."""
    state, j = list(range(256)), 0
    for i in range(256):
        j = (j + state[i] + key[i % len(key)]) % 256
        state[i], state[j] = state[j], state[i]
    i = j = 0
    out = bytearray()
    for byte in data:
        i = (i + 1) % 256
        j = (j + state[i]) % 256
        state[i], state[j] = state[j], state[i]
        out.append(byte ^ state[(state[i] + state[j]) % 256])
    return bytes(out)


def _number(dictionary: bytes, name: bytes) -> int | None:
    found = re.search(name + rb"\s+(-?\d{1,10})\b", dictionary)
    return None if found is None else int(found[1])


def _string(data: bytes, prefix: bytes) -> bytes | None:
    """The string, literal or in hexadecimal digits, after a prefix; None: there is none."""
    found = re.search(prefix + rb"(?=\(|<(?!<))", data)
    if found is None:
        return None
    rest = data[found.end() :]
    if rest.startswith(b"<"):
        digits = re.sub(rb"\s", b"", rest[1:].partition(b">")[0])
        return bytes.fromhex(digits.decode(errors="replace")) if re.fullmatch(rb"([0-9A-Fa-f]{2})*", digits) else None
    return _literal(rest)


def _literal(rest: bytes) -> bytes | None:
    """A string in parentheses, which may have further ones in it."""
    depth, at = 0, 0
    while at < len(rest):
        byte = rest[at : at + 1]
        if byte == b"\\":
            at += 1
        elif byte == b"(":
            depth += 1
        elif byte == b")":
            depth -= 1
            if depth == 0:
                return _ESCAPE.sub(_unescaped, rest[1:at])
        at += 1
    return None


def _unescaped(escape: re.Match[bytes]) -> bytes:
    word = escape[1]
    if word.isdigit():
        return bytes([int(word, 8) & 0xFF])
    return b"" if word in {b"\r", b"\n", b"\r\n"} else _ESCAPES.get(word, word)
