"""Isolation where namespaces are refused: Landlock for files, a filter of system calls for the network.

Both need Linux (5.13) on x86-64 or ARM64, no rights, and the permission of the container's own filter, which is usual.
"""

import ctypes
import os
import struct
from collections.abc import Iterable
from pathlib import Path

_CREATE, _ADD, _RESTRICT = 444, 445, 446
_VERSION = 1
_BENEATH = 1
_EXECUTE, _WRITE, _READ, _READ_DIRECTORY, _MAKE_SOCKET, _REMOVE_FILE = 1, 2, 4, 8, 1 << 9, 1 << 5
_ALL_RIGHTS = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1}
_ALL_RIGHTS_NOW = (1 << 16) - 1
_TRUNCATE = 1 << 14
_OPEN_PATH = os.O_RDONLY | getattr(os, "O_PATH", 0) | os.O_CLOEXEC

_SET_SECCOMP, _FILTER = 22, 2
_UNIX_SOCKETS = 1
_REFUSED = 0x00050000 | 1  # an error, EPERM
_ALLOWED = 0x7FFF0000
_IO_URING = 425
_FOREIGN_CALLS = 0x40000000  # those of the x32 interface
_MACHINES = {"x86_64": (0xC000003E, 41), "aarch64": (0xC00000B7, 198)}
"""Of each machine its number in filters, and the number of the call `socket`."""


class LandlockError(Exception):
    """The machine does not offer this kind of isolation."""


def restrict(readable: Iterable[Path], devices: Iterable[Path], writable: Path) -> None:
    """Take from this process, for good, the network and all files but these.

    Raises:
        LandlockError: the machine does not offer it.
    """
    try:
        number, socket_call = _MACHINES[os.uname().machine]
        _restrict_files(readable, devices, writable)
        _restrict_network(number, socket_call)
    except (OSError, KeyError, AttributeError) as error:
        raise LandlockError(str(error)) from None


def _restrict_files(readable: Iterable[Path], devices: Iterable[Path], writable: Path) -> None:
    version = _syscall(_CREATE, None, 0, _VERSION)
    everything = _ALL_RIGHTS.get(version, _ALL_RIGHTS_NOW)
    attributes = struct.pack("=Q", everything)
    rules = _syscall(_CREATE, attributes, len(attributes), 0)
    try:
        for path in readable:
            _allow(rules, path, _EXECUTE | _READ | _READ_DIRECTORY)
        for path in devices:
            _allow(rules, path, (_READ | _WRITE | _TRUNCATE) & everything)
        _allow(rules, writable, everything & ~(1 << 6) & ~(1 << 11))  # no devices
        # LibreOffice has a socket there, whose path would be too long elsewhere.
        _allow(rules, Path("/tmp"), _MAKE_SOCKET | _REMOVE_FILE)  # noqa: S108
        _syscall(_RESTRICT, rules, 0)
    finally:
        os.close(rules)


def _allow(rules: int, path: Path, rights: int) -> None:
    descriptor = os.open(path, _OPEN_PATH)
    try:
        if not path.is_dir():
            rights &= _EXECUTE | _WRITE | _READ | _TRUNCATE
        _syscall(_ADD, rules, _BENEATH, struct.pack("=Qi", rights, descriptor), 0)
    finally:
        os.close(descriptor)


def _restrict_network(number: int, socket_call: int) -> None:
    """Refuse every socket but those of the same machine, and calls by which a socket could be had in another way."""
    load, jump_equal, jump_at_least, answer = 0x20, 0x15, 0x35, 0x06
    steps = [
        (load, 0, 0, 4),
        (jump_equal, 0, 7, number),
        (load, 0, 0, 0),
        (jump_at_least, 5, 0, _FOREIGN_CALLS),
        (jump_equal, 4, 0, _IO_URING),
        (jump_equal, 0, 2, socket_call),
        (load, 0, 0, 16),
        (jump_equal, 0, 1, _UNIX_SOCKETS),
        (answer, 0, 0, _ALLOWED),
        (answer, 0, 0, _REFUSED),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("=HBBI", *step) for step in steps))
    program = struct.pack("@HP", len(steps), ctypes.addressof(code))
    if _library().prctl(_SET_SECCOMP, _FILTER, program, 0, 0) < 0:
        raise OSError(ctypes.get_errno(), "seccomp")


def _syscall(*arguments: object) -> int:
    found = int(_library().syscall(*arguments))
    if found < 0:
        raise OSError(ctypes.get_errno(), "landlock")
    return found


def _library() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)
