"""Conversion of one job: its input object becomes pages in the output bucket."""

import asyncio
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from docpreview_emulator.errors import CloudError, JobFailure
from docpreview_emulator.formats import Family, family_of, suffix_of
from docpreview_emulator.image_params import ImageParams
from docpreview_emulator.model import Bucket, Job, JobResult, PageInfo, StoredObject
from docpreview_emulator.objects import ObjectTable
from docpreview_emulator.office import OfficeConverter, Part
from docpreview_emulator.pages import MAX_PAGES, OutputName, RenderOptions
from docpreview_emulator.requests import image_place
from docpreview_emulator.worker import RenderWorker

MAX_SOURCE_BYTES = 200 * 1024 * 1024
_CONTENT_TYPES = {"jpg": "image/jpeg", "png": "image/png", "pdf": "application/pdf"}


@dataclass(frozen=True, slots=True)
class _Rendered:
    """One part of a document (all of it, or one sheet) with its outputs in a directory."""

    part: Part
    directory: Path
    total: int
    outputs: list[tuple[int, str]]
    failed: int
    warnings: tuple[str, ...]


class Converter:
    """Converts documents of every family to stored pages."""

    def __init__(self, objects: ObjectTable, worker: RenderWorker, office: OfficeConverter, directory: Path) -> None:
        self._objects = objects
        self._worker = worker
        self._office = office
        self._directory = directory
        directory.mkdir(parents=True, exist_ok=True)

    async def convert(self, job: Job) -> JobResult:
        """Convert the job's document.

        Raises:
            JobFailure: the job ends as Failed.
            StorageError: the pages cannot be stored.
        """
        source = self._source(job)
        with tempfile.TemporaryDirectory(dir=self._directory, ignore_cleanup_errors=True) as name:
            directory = Path(name)
            parts, sheets = await self._parts(job, self._objects.path(source), directory)
            options = RenderOptions(
                job.spec.process, self._watermark(job.spec.watermark), self._images(job.spec.process)
            )
            rendered: list[_Rendered] = []
            for part in parts:
                limit = max(MAX_PAGES - sum(each.total for each in rendered), 0)
                rendered.append(await self._render(part, directory, replace(options, limit=limit)))
            return await asyncio.to_thread(self._store, job, rendered, sheets)

    def _source(self, job: Job) -> StoredObject:
        source = self._objects.find(job.bucket, job.spec.input_object.removeprefix("/"))
        if source is None:
            raise JobFailure("ResourceNotFound", "The input object does not exist any more.")
        if source.size == 0:
            raise JobFailure("-3008", "The document is empty.")
        if source.size > MAX_SOURCE_BYTES:
            raise JobFailure("-3075", f"The document has more than {MAX_SOURCE_BYTES} bytes.")
        return source

    async def _parts(self, job: Job, source: Path, directory: Path) -> tuple[list[Part], int | None]:
        """The PDFs to render, and for a workbook the number of its sheets."""
        suffix = suffix_of(job.spec.input_object, job.spec.process["SrcType"])
        family = family_of(suffix)
        if family is None:
            raise JobFailure("-3011", f"Unsupported file type: {suffix or 'the object has no suffix'}.")
        if family is Family.PDF:
            return [Part(source)], None
        return await self._office.convert(source, suffix, job.spec.process, directory)

    def _watermark(self, values: Mapping[str, str]) -> dict[str, str]:
        """The values of a watermark, with the path of its image."""
        if not values:
            return {}
        image = self._objects.find(*image_place(values["Image"]))
        if image is None:
            raise JobFailure("ResourceDownloadFailed", "The image of the watermark does not exist.")
        return {**values, "Image": str(self._objects.path(image))}

    def _images(self, process: Mapping[str, str]) -> dict[str, str]:
        """The files of the images of watermarks in `ImageParams`, by their addresses."""
        found = {}
        for address in ImageParams.read(process["ImageParams"], process["TgtType"].lower()).addresses:
            try:
                image = self._objects.find(*image_place(address))
            except CloudError as error:
                raise JobFailure("ResourceDownloadFailed", error.message) from None
            if image is None:
                raise JobFailure("ResourceDownloadFailed", "The image of a watermark in ImageParams does not exist.")
            found[address] = str(self._objects.path(image))
        return found

    async def _render(self, part: Part, directory: Path, options: RenderOptions) -> _Rendered:
        target = directory / f"pages-{part.sheet or 0}"
        target.mkdir()
        if part.source is None:
            return _Rendered(part, target, 0, [], 0, part.warnings)
        reply = await self._worker.render(part.source, target, options)
        outputs = [(int(page), str(name)) for page, name in reply["outputs"]]
        warnings = (*part.warnings, *map(str, reply["warnings"]))
        return _Rendered(part, target, int(reply["total"]), outputs, len(reply["failed"]), warnings)

    def _store(self, job: Job, rendered: list[_Rendered], sheets: int | None) -> JobResult:
        bucket = Bucket(job.spec.output.bucket, job.spec.output.region)
        pages: list[PageInfo] = []
        for each in rendered:
            for number, (page, name) in enumerate(each.outputs, start=1):
                info = _page_info(job, each, number, page, len(pages) + 1)
                content_type = _CONTENT_TYPES[name.rpartition(".")[2]]
                self._objects.put_file(bucket, info.target.removeprefix("/"), each.directory / name, content_type)
                pages.append(info)
        total, failed = sum(each.total for each in rendered), sum(each.failed for each in rendered)
        warnings = dict.fromkeys(warning for each in rendered for warning in each.warnings)
        return JobResult(total, failed, tuple(pages), sheets, tuple(warnings))


def _page_info(job: Job, rendered: _Rendered, number: int, page: int, index: int) -> PageInfo:
    sheet = rendered.part.sheet
    naming = OutputName.of(job.spec.output.object, job.spec.process)
    target = naming.fill(number=number, page=page, sheet=sheet or 1)
    if sheet is None:
        return PageInfo(page, target)
    return PageInfo(sheet, target, len(rendered.outputs), index, number)
