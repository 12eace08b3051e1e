"""End-to-end demo: real documents in, page images out.

Starts the emulator and the gateway on free loopback ports, uploads the documents beside this script, creates jobs over
gRPC, watches them, downloads their pages through signed URLs, and writes a contact sheet. `make demo` runs it.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import tempfile
import time
from contextlib import redirect_stderr
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import aiohttp
from google.protobuf import json_format
from PIL import Image, ImageDraw

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview_client import DocPreviewClient
from docpreview_emulator import Emulator
from docpreview_gateway.settings.loading import Settings
from docpreview_gateway.wiring.gateway import Gateway

BUCKET = "examplebucket-1250000000"
REGION = "ap-chongqing"
EXAMPLES = Path(__file__).parent
OUTPUT = EXAMPLES.parent / "build" / "demo"
SHOWN_METRICS = ("grpc_server_handled_total", "docpreview_upstream_requests_total", "docpreview_watchers")
THUMBNAIL = (150, 200)
COLUMNS = 8


@dataclass(frozen=True)
class Request:
    """A job of the demo."""

    document: str
    template: str
    options: PreviewOptions


REQUESTS = (
    Request("seven-pages.pdf", "/test_doc/normal/abc_${Number}.jpg", PreviewOptions(page_ranges="1,3")),
    Request("sixty-pages.pdf", "previews/sixty/page-${Page}.jpg", PreviewOptions(quality=80)),
)
SLIDES = Request(
    "normal.pptx", "previews/slides/page-${Page}.png", PreviewOptions(target_format=PreviewOptions.TARGET_FORMAT_PNG)
)


def settings(emulator: Emulator, state_dir: str) -> Settings:
    """Settings of a gateway for one bucket, whose cloud is the emulator."""
    return Settings.model_validate(
        {
            "listen": "127.0.0.1:0",
            "admin_listen": "127.0.0.1:0",
            "reflection": True,
            "state_dir": state_dir,
            "buckets": [{"name": BUCKET, "region": REGION, "credentials": "main"}],
            "credentials": {
                "main": {"secret_id": "example-secret-id", "secret_key": "EXAMPLEsecretKEY00000000000000000"}
            },
            "upstream": {"endpoint": emulator.url, "object_url_base": f"{emulator.url}/_emulator/objects/{{host}}"},
            "watch": {"poll_floor_seconds": 0.1},
            "drain": {"delay_seconds": 0},
        }
    )


async def run_job(client: DocPreviewClient, request: Request) -> tuple[PreviewJob, list[Path]]:
    """Upload a document, print each state of its job, and bring its pages home; the job in its terminal state."""
    await client.upload(EXAMPLES / request.document, BUCKET, request.document)
    job = await client.create(BUCKET, request.document, output_object=request.template, options=request.options)
    begin = time.perf_counter()
    async for seen in client.watch(BUCKET, job.job_id, page_url_ttl=timedelta(minutes=10)):
        job = seen
        print(f"  {request.document:16} {time.perf_counter() - begin:5.1f} s  {job.raw_state}")
    if job.state != PreviewJob.STATE_SUCCESS:
        raise SystemExit(f"{request.document}: {job.raw_state}: {job.failure.message}")
    return job, await client.download(job, OUTPUT / Path(request.document).stem)


def contact_sheet(pages: list[Path]) -> Image.Image:
    """Thumbnails of all pages, with their names below."""
    width, height = THUMBNAIL[0] + 12, THUMBNAIL[1] + 26
    rows = -(-len(pages) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * width, rows * height), "#e9ecef")
    draw = ImageDraw.Draw(sheet)
    for index, path in enumerate(pages):
        image = Image.open(path).convert("RGB")
        image.thumbnail(THUMBNAIL)
        left, top = index % COLUMNS * width + 6, index // COLUMNS * height + 6
        sheet.paste(image, (left, top))
        draw.text((left, top + image.height + 3), f"{path.parent.name}/{path.name}", fill="#333333")
    return sheet


async def metrics(gateway: Gateway) -> list[str]:
    """A few lines of the metrics page."""
    address = f"http://127.0.0.1:{gateway.admin_port}/metrics"
    async with aiohttp.ClientSession() as scraper, scraper.get(address) as reply:
        return [line for line in (await reply.text()).splitlines() if line.startswith(SHOWN_METRICS)]


async def run(requests: list[Request], state_dir: str) -> tuple[list[PreviewJob], list[Path], list[str]]:
    """Start emulator and gateway, and run all jobs concurrently; the jobs, their pages and a few metrics."""
    async with Emulator() as emulator, Gateway(settings(emulator, state_dir)) as gateway:
        print(f"emulator on {emulator.url}, gateway on 127.0.0.1:{gateway.port}")
        async with DocPreviewClient(f"127.0.0.1:{gateway.port}") as client:
            ended = await asyncio.gather(*(run_job(client, request) for request in requests))
        return [job for job, _ in ended], [page for _, pages in ended for page in pages], await metrics(gateway)


def main() -> None:
    """Run the demo; the exit code is 0 when every page was rendered."""
    requests = [*REQUESTS]
    if shutil.which("soffice") or shutil.which("libreoffice"):
        requests.append(SLIDES)
    else:
        print("LibreOffice is not installed: skipping the presentation")
    OUTPUT.mkdir(parents=True, exist_ok=True)
    log = OUTPUT / "gateway.log"
    with tempfile.TemporaryDirectory() as state_dir, log.open("w", encoding="utf-8") as file, redirect_stderr(file):
        jobs, pages, lines = asyncio.run(run(requests, state_dir))
    path = OUTPUT / "contact-sheet.png"
    contact_sheet(pages).save(path)
    shown = json_format.MessageToDict(jobs[0], preserving_proto_field_name=True)
    for page in shown["result"]["pages"]:
        page["url"] = page["url"].partition("?")[0] + "?<signature>"
    print("the first job, as JSON:", json.dumps(shown, indent=2), sep="\n")
    print("metrics:", *lines, sep="\n  ")
    print(f"{len(pages)} pages: {shortest(path)}, log of the gateway: {shortest(log)}")


def shortest(path: Path) -> Path:
    """The path as it is seen from the current folder."""
    return path.relative_to(Path.cwd()) if path.is_relative_to(Path.cwd()) else path


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        raise SystemExit(130) from None
