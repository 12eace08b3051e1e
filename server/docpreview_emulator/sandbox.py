"""The walls around a process that opens documents: no network, none of the machine's files, limited resources.

On Linux the process gets user, mount, network, process and IPC namespaces of its own. Its root is an empty one with the
programs, libraries and fonts of the machine (read-only), a few devices, and one directory that it may write. Where
namespaces are refused, as in most containers, Landlock and a filter of system calls stand in for them (`landlock`); on
other systems there are the limits alone. Nothing here needs to be root.
"""

import contextlib
import ctypes
import os
import resource
import sys
import sysconfig
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from docpreview_emulator.landlock import LandlockError, restrict

NAMESPACES, LANDLOCK, LIMITS = "namespaces", "landlock", "limits"
KINDS = (NAMESPACES, LANDLOCK, LIMITS)
"""The kinds of isolation, from the strongest."""

DESCRIPTIONS = {
    NAMESPACES: "without network and the machine's files (namespaces)",
    LANDLOCK: "without network and the machine's files (Landlock and seccomp)",
    LIMITS: "with limits alone: they can reach network and files of this machine",
}

_NEW_NAMESPACES = 0x10000000 | 0x20000000 | 0x40000000 | 0x08000000 | 0x04000000  # user, process, network, IPC, UTS
_NEW_MOUNTS = 0x00020000
_RDONLY, _NOSUID, _NODEV, _NOEXEC, _REMOUNT, _BIND, _REC, _PRIVATE = 1, 2, 4, 8, 32, 4096, 16384, 1 << 18
_KEPT_FLAGS = {2: 2, 4: 4, 8: 8, 1024: 1024, 2048: 2048, 4096: 1 << 21}
"""Of statvfs, and of mount: nosuid, nodev, noexec, noatime, nodiratime, relatime."""

_DETACH = 2
_NO_NEW_PRIVILEGES, _DEATH_SIGNAL = 38, 1
_INNER_ID = 1000
_DEVICES = ("null", "zero", "full", "random", "urandom")

# What programs, libraries and fonts need; symbolic links such as /bin are made again.
_SYSTEM = (
    "/usr",
    "/bin",
    "/sbin",
    "/lib",
    "/lib32",
    "/lib64",
    "/var/cache/fontconfig",
    "/var/lib/libreoffice",
    "/var/spool/libreoffice",
)
_SETTINGS = ("fonts", "libreoffice", "alternatives", "ld.so.cache", "localtime")


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of each process: bytes of memory, seconds of CPU time, bytes of all files that it writes."""

    memory: int
    cpu_seconds: int
    file_bytes: int


def limit(limits: Limits) -> None:
    """Put the limits on this process and its children."""
    for kind, wanted in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_NOFILE, 1024),
        (resource.RLIMIT_CORE, 0),
    ):
        _lower(kind, wanted, wanted)
    # The first process of a namespace takes no notice of the signal that comes at the lower one.
    _lower(resource.RLIMIT_CPU, limits.cpu_seconds, limits.cpu_seconds + 1)


def _lower(kind: int, soft: int, hard: int) -> None:
    present = resource.getrlimit(kind)[1]
    highest = hard if present == resource.RLIM_INFINITY else min(hard, present)
    with contextlib.suppress(ValueError):  # a system may not have this limit
        resource.setrlimit(kind, (min(soft, highest), highest))


def separate() -> bool:
    """Give the children of this process namespaces of their own; False: the machine refuses."""
    if not sys.platform.startswith("linux"):
        return False
    user, group = os.getuid(), os.getgid()
    try:
        _call("unshare", _NEW_NAMESPACES)
        Path("/proc/self/setgroups").write_text("deny", encoding="ascii")
        Path("/proc/self/uid_map").write_text(f"{_INNER_ID} {user} 1", encoding="ascii")
        Path("/proc/self/gid_map").write_text(f"{_INNER_ID} {group} 1", encoding="ascii")
    except OSError:
        return False
    return True


def enter(directory: Path, programs: Iterable[Path], *, strongest: str, separated: bool) -> str:
    """Leave all files but those of `directory` and what programs need; the kind of isolation that is in force.

    Args:
        directory: where this process may write; it has the same path inside.
        programs: further directories that are needed to read, such as the fonts of the user.
        strongest: the strongest isolation to try, one of `KINDS`.
        separated: whether this is the child of a process that did `separate`.
    """
    if not sys.platform.startswith("linux"):
        return LIMITS
    _call("prctl", _NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    if strongest == LIMITS:
        return LIMITS
    readable = list(dict.fromkeys([*_readable(), *programs]))
    if separated:
        try:
            _new_root(directory, readable)
        except OSError:
            pass
        else:
            return NAMESPACES
    try:
        restrict([path for path in readable if path.exists()], [Path("/dev") / name for name in _DEVICES], directory)
    except LandlockError:
        return LIMITS
    return LANDLOCK


def die_with_parent() -> None:
    """Have this process killed when the one that started it ends."""
    if sys.platform.startswith("linux"):
        _call("prctl", _DEATH_SIGNAL, 9, 0, 0, 0)


def _readable() -> Iterator[Path]:
    """Directories of programs, libraries, fonts and this Python with the packages that convert."""
    yield from map(Path, _SYSTEM)
    yield from (Path("/etc") / name for name in _SETTINGS)
    paths = sysconfig.get_paths()
    yield from (Path(paths["stdlib"]), Path(paths["platstdlib"]), Path(sys.base_prefix) / "lib")
    yield Path(__file__).parent
    for package in ("PIL", "pypdfium2", "pypdfium2_raw"):
        found = find_spec(package)
        if found is not None and found.origin is not None:
            yield Path(found.origin).parent
            yield from Path(found.origin).parent.parent.glob("pillow.libs")


def _new_root(directory: Path, readable: list[Path]) -> None:
    """Make an empty root, mount what is wanted into it, and change into it."""
    _call("unshare", _NEW_MOUNTS)
    _mount(None, "/", None, _REC | _PRIVATE)
    root = directory / "root"
    root.mkdir()
    _mount("tmpfs", root, "tmpfs", _NOSUID | _NODEV, "size=64m,mode=755")
    for path in readable:
        _show(root, path)
    for name in _DEVICES:
        _bind(Path("/dev") / name, root / "dev" / name)
    for name in ("tmp", "dev/shm"):
        (root / name).mkdir(exist_ok=True, parents=True)
    (root / "proc").mkdir()
    with contextlib.suppress(OSError):  # a container may hide parts of its own, and then no new one may be mounted
        _mount("proc", root / "proc", "proc", _NOSUID | _NODEV | _NOEXEC)
    _bind(directory, root / directory.relative_to("/"))
    os.chdir(root)
    _pivot()
    os.chdir(directory)
    _drop_capabilities()


def _show(root: Path, path: Path) -> None:
    """Show a file, directory or symbolic link of the machine at the same path below the new root."""
    target = root / path.relative_to("/")
    if path.is_symlink() and path.parent == Path("/"):
        target.symlink_to(path.readlink())
    elif path.exists() and not target.exists():
        _bind(path, target, read_only=True)


def _bind(source: Path, target: Path, *, read_only: bool = False) -> None:
    if source.is_dir():
        target.mkdir(parents=True, exist_ok=True)
    else:
        target.parent.mkdir(parents=True, exist_ok=True)
        target.touch()
    _mount(source, target, None, _BIND | (_REC if read_only else 0))
    if read_only:
        # Flags that the mount has may not be taken away in a namespace of one's own.
        present = os.statvfs(target).f_flag
        kept = sum(flag for seen, flag in _KEPT_FLAGS.items() if present & seen)
        _mount(None, target, None, _BIND | _REMOUNT | _RDONLY | _NOSUID | kept)


def _pivot() -> None:
    """Make the working directory the root, and let go of the old one."""
    number = {"x86_64": 155, "aarch64": 41}.get(os.uname().machine)
    if number is None:
        raise OSError(f"pivot_root on {os.uname().machine} is not known here")
    _call("syscall", number, b".", b".")
    _call("umount2", b".", _DETACH)
    os.chdir("/")


def _drop_capabilities() -> None:
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)
    _call("capset", ctypes.byref(header), ctypes.byref((ctypes.c_uint32 * 6)()))


def _mount(source: "Path | str | None", target: "Path | str", kind: str | None, flags: int, data: str = "") -> None:
    texts = [None if text is None else os.fsencode(text) for text in (source, target, kind)]
    _call("mount", *texts, ctypes.c_ulong(flags), data.encode() or None)


def _call(name: str, *arguments: object) -> None:
    """Call a function of the C library.

    Raises:
        OSError: it failed.
    """
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number), name)
