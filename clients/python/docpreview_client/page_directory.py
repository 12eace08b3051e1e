"""The directory of a job's pages, with a manifest of what is complete there: whose pages, and how long each is."""

import errno
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Lock
from typing import Any, Final

import grpc

from docpreview_client import errors
from docpreview_client.page_files import is_name

MANIFEST: Final = ".docpreview.json"


def prepared(directory: Path) -> Path:
    """The directory, made if it is not there.

    Raises:
        OSError: It cannot be made, is no directory, or nothing can be written to it.
    """
    if directory.exists() and not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(directory))
    directory.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryFile(dir=directory):
        return directory


def named(directory: str | os.PathLike[str]) -> Path:
    """The directory of this name. InvalidRequest for an empty one, which would be the working directory."""
    if not os.fspath(directory):
        raise errors.InvalidRequest("the name of the directory is empty", code=grpc.StatusCode.INVALID_ARGUMENT)
    return Path(directory)


_taken: Final[set[Path]] = set()
_taking: Final = Lock()


@contextmanager
def taken(directory: Path) -> Iterator[None]:
    """Takes the directory for one download of this process.

    Raises:
        InvalidRequest: Another one goes to it.
    """
    path = directory.resolve()
    with _taking:
        if path in _taken:
            text = f"another download goes to {directory}"
            raise errors.InvalidRequest(text, code=grpc.StatusCode.INVALID_ARGUMENT)
        _taken.add(path)
    try:
        yield
    finally:
        _taken.discard(path)


@contextmanager
def removed_if_unused(directory: Path) -> Iterator[None]:
    """When the block fails, removes the directory and its parents that were made in it and have stayed empty."""
    missing = [one for one in (directory, *directory.parents) if not os.access(one, os.F_OK)]
    try:
        yield
    except BaseException:
        for one in missing:
            with suppress(OSError):
                one.rmdir()
        raise


def delete_pages_of_other_jobs(directory: Path, *, job_id: str) -> None:
    """Deletes the pages that the manifest names, unless they are this job's."""
    if (directory / MANIFEST).exists():
        PageDirectory(directory, job_id=job_id)


class PageDirectory:
    """A directory with pages of one job. Those of another job that its manifest names are deleted."""

    def __init__(self, directory: Path, *, job_id: str) -> None:
        self.path = directory
        self._job_id = job_id
        kept = _read(directory / MANIFEST)
        self._sizes: dict[str, int] = kept["pages"]
        if kept["job_id"] != job_id:
            self._delete()
        self.save()

    def has(self, name: str) -> bool:
        """Whether the file is complete."""
        size = self._sizes.get(name)
        try:
            return size is not None and (self.path / name).stat().st_size == size
        except OSError:
            return False

    def unfinished(self, name: str) -> Path:
        """Where the file is while it is not complete."""
        return self.path / f"{name}.part"

    def complete(self, name: str) -> None:
        """Gives the complete file its name."""
        size = self.unfinished(name).stat().st_size
        self.unfinished(name).replace(self.path / name)
        self._sizes[name] = size

    def size(self, name: str) -> int:
        """Bytes of a complete file."""
        return self._sizes[name]

    def save(self) -> None:
        """Writes the manifest."""
        new = self.path / f"{MANIFEST}.new"
        new.write_text(json.dumps({"job_id": self._job_id, "pages": self._sizes}))
        new.replace(self.path / MANIFEST)

    def _delete(self) -> None:
        """Deletes the pages of another job, and unfinished pages, which may be of any."""
        for name in self._sizes:
            (self.path / name).unlink(missing_ok=True)
        for file in self.path.glob("*.part"):
            if is_name(file.name):
                file.unlink(missing_ok=True)
        self._sizes = {}


def _read(file: Path) -> dict[str, Any]:
    """The manifest, without what this client cannot have written."""
    try:
        kept = json.loads(file.read_text())
        pages = {name: size for name, size in kept["pages"].items() if is_name(name) and isinstance(size, int)}
        return {"job_id": kept["job_id"], "pages": pages}
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {"job_id": None, "pages": {}}
