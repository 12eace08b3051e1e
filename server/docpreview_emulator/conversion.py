"""Conversion of one job: its input object becomes pages in the output bucket.

This part runs in the server and opens no document: it hands a copy to a process (`worker`) and stores what came out.
"""

import asyncio
import re
import shutil
import stat
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from docpreview_emulator.errors import CloudError, JobFailure
from docpreview_emulator.formats import SUFFIXES, Family, family_of, suffix_of
from docpreview_emulator.image_params import ImageParams
from docpreview_emulator.model import Bucket, Job, JobResult, PageInfo, StoredObject
from docpreview_emulator.objects import ObjectTable
from docpreview_emulator.office import PROFILE
from docpreview_emulator.pages import MAX_PAGES, OutputName, RenderOptions
from docpreview_emulator.requests import image_place
from docpreview_emulator.settings import Settings
from docpreview_emulator.turns import Turns
from docpreview_emulator.worker import DocumentProcess, Workers

MAX_SOURCE_BYTES = 200 * 1024 * 1024
_CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "pdf": "application/pdf"}
_OUTPUT = re.compile(r"pages-\d+/(?:\d+|whole)\.(jpg|png|pdf)", re.ASCII)


class Converter:
    """Converts documents of every family to stored pages; `profile` is where LibreOffice's is kept."""

    def __init__(
        self, objects: ObjectTable, workers: Workers, turns: Turns, *, profile: Path, settings: Settings
    ) -> None:
        self._objects = objects
        self._workers = workers
        self._turns = turns
        self._profile = profile
        self._profile_lock = asyncio.Lock()
        self._settings = settings

    def expect(self) -> None:
        """Have a process ready: a document will come soon."""
        self._workers.start_ahead()

    async def convert(self, job: Job) -> JobResult:
        """Convert the job's document.

        Raises:
            JobFailure: the job ends as Failed.
            StorageError: the pages cannot be stored.
        """
        source, suffix = self._source(job), self._suffix(job)
        async with self._turns.of(job.bucket):
            if family_of(suffix) is not Family.PDF:
                await self._ensure_profile()
            async with self._workers.process() as process:
                task = await asyncio.to_thread(self._task, job, source, suffix, process.directory)
                reply = await process.ask(task, self._settings.conversion_timeout)
                await process.end()  # it may be in the hands of its document: what it wrote changes no more
                return await asyncio.to_thread(self._store, job, reply, process)

    def _source(self, job: Job) -> StoredObject:
        source = self._objects.find(job.bucket, job.spec.input_object.removeprefix("/"))
        if source is None:
            raise JobFailure("ResourceNotFound", "The input object does not exist any more.")
        if source.size == 0:
            raise JobFailure("-3008", "The document is empty.")
        if source.size > MAX_SOURCE_BYTES:
            raise JobFailure("-3075", f"The document has more than {MAX_SOURCE_BYTES} bytes.")
        return source

    def _suffix(self, job: Job) -> str:
        suffix = suffix_of(job.spec.input_object, job.spec.process["SrcType"])
        family = family_of(suffix)
        if family is None:
            what = suffix or "the object has no suffix"
            raise JobFailure("-3011", f"Unsupported file type: {what}. The cloud converts {SUFFIXES}.")
        if family is not Family.PDF and self._workers.office is None:
            message = f"Unsupported file type: {suffix} (LibreOffice is not installed beside the emulator)."
            raise JobFailure("-3011", message)
        return suffix

    async def _ensure_profile(self) -> None:
        """Have LibreOffice's profile made before the first document; each gets a copy."""
        async with self._profile_lock:
            if self._profile.exists():
                return
            async with self._workers.process() as process:
                self._workers.start_ahead()  # the one that converts
                await process.ask(
                    {"step": "profile", "program": self._workers.office}, self._settings.conversion_timeout
                )
                await asyncio.to_thread(shutil.copytree, process.directory / PROFILE, self._profile, symlinks=True)

    def _task(self, job: Job, source: StoredObject, suffix: str, directory: Path) -> dict[str, Any]:
        """What the process is asked, with copies of what it needs in its directory."""
        document = directory / "document"
        shutil.copyfile(self._objects.path(source), document)
        if family_of(suffix) is not Family.PDF:
            shutil.copytree(self._profile, directory / PROFILE, symlinks=True)
        return {
            "step": "convert",
            "program": self._workers.office,
            "source": str(document),
            "suffix": suffix,
            "max_unpacked": self._settings.max_unpacked,
            "options": asdict(self._options(job, directory)),
        }

    def _options(self, job: Job, directory: Path) -> RenderOptions:
        """What is asked of the rendering, with paths of copies of the images of watermarks."""
        process, watermark = job.spec.process, dict(job.spec.watermark)
        if watermark:
            watermark["Image"] = self._copied(watermark["Image"], directory / "watermark", "the watermark")
        addresses = ImageParams.read(process["ImageParams"], process["TgtType"].lower()).addresses
        images = {
            address: self._copied(address, directory / f"image-{number}", "a watermark in ImageParams")
            for number, address in enumerate(addresses)
        }
        megapixels = (self._settings.max_page_megapixels, self._settings.max_job_megapixels)
        return RenderOptions(process, watermark, images, MAX_PAGES, *megapixels)

    def _copied(self, address: str, copy: Path, whose: str) -> str:
        """The path of a copy of the image of a watermark."""
        try:
            image = self._objects.find(*image_place(address))
        except CloudError as error:
            raise JobFailure("ResourceDownloadFailed", error.message) from None
        if image is None:
            raise JobFailure("ResourceDownloadFailed", f"The image of {whose} does not exist.")
        shutil.copyfile(self._objects.path(image), copy)
        return str(copy)

    def _store(self, job: Job, reply: Mapping[str, Any], process: DocumentProcess) -> JobResult:
        bucket = Bucket(job.spec.output.bucket, job.spec.output.region)
        pages: list[PageInfo] = []
        for part in reply["parts"]:
            for number, (page, name) in enumerate(part["outputs"], start=1):
                info = _page_info(job, part, number, page, len(pages) + 1)
                path, content_type = _output(process.directory, f"{part['directory']}/{name}")
                self._objects.put_file(bucket, info.target.removeprefix("/"), path, content_type)
                pages.append(info)
        total = sum(int(part["total"]) for part in reply["parts"])
        failed = sum(len(part["failed"]) for part in reply["parts"])
        return JobResult(total, failed, tuple(pages), reply["sheets"], tuple(map(str, reply["warnings"])))


def _output(directory: Path, name: str) -> tuple[Path, str]:
    """An output and its content type.

    Raises:
        JobFailure: it is no file of its directory. The process that wrote it may be in the hands of its document.
    """
    found, path = _OUTPUT.fullmatch(name), directory / name
    if found is None or path.parent.is_symlink() or not stat.S_ISREG(path.lstat().st_mode):
        raise JobFailure("FileOpenFailed", "The document made the converter answer what is not so.")
    return path, _CONTENT_TYPES[found[1]]


def _page_info(job: Job, part: Mapping[str, Any], number: int, page: int, index: int) -> PageInfo:
    sheet = part["sheet"]
    naming = OutputName.of(job.spec.output.object, job.spec.process)
    target = naming.fill(number=number, page=page, sheet=sheet or 1)
    if sheet is None:
        return PageInfo(page, target)
    return PageInfo(sheet, target, len(part["outputs"]), index, number)
