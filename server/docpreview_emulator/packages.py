"""Bound on what the package of an Office document unpacks to, told from its directory before anything is unpacked."""

import zipfile
from pathlib import Path

from docpreview_emulator.errors import JobFailure

MEBIBYTE = 1024 * 1024
_MOST_PARTS = 50_000


def check_unpacked(source: Path, mebibytes: int) -> None:
    """Refuse a package that unpacks to more. A directory that tells less than its parts have makes a damaged package.

    Raises:
        JobFailure: it does; the message names the limit.
    """
    try:
        with zipfile.ZipFile(source) as package:
            parts = package.infolist()
    except (zipfile.BadZipFile, OSError, NotImplementedError):
        return  # no package, or one that is damaged, as will be found
    if sum(part.file_size for part in parts) > mebibytes * MEBIBYTE or len(parts) > _MOST_PARTS:
        raise JobFailure("-3075", f"The document unpacks to more than {mebibytes} MiB (--max-unpacked).")
