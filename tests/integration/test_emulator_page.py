"""The emulator's page in a real browser: documents are dropped on it, and it follows what happens."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from aiohttp import web

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.faults import MEANINGS, Kind
from tests.chromium import Browser, check_looks, chromium
from tests.unit.emulator.cloud_client import BUCKET, REGION, Cloud
from tests.unit.emulator.ended_jobs import ended_jobs

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SEVEN = Path(__file__).parents[2] / "examples" / "seven-pages.pdf"
OPEN_ALL = "document.querySelectorAll('details').forEach(part => { part.open = true; })"
DECODED = "Promise.all([...document.images].map(image => (image.loading = 'eager', image.decode())))"
SEEN = """new Promise(done => {{
  const image = document.images[{}];
  if (image.complete && image.naturalWidth) done(); else image.onload = () => done();
}})"""
"""Waits until an image has been loaded."""

CARDS = "[...document.querySelectorAll('#job-list > li .state')].map(state => state.textContent).join()"
EVIL = "<img src=x onerror=document.title=1>.pdf"

BESIDE = """(() => {{
  const place = document.querySelector({0!r});
  const texts = document.createTreeWalker(place, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) if (texts.currentNode.data.includes("\u202e")) break;
  const range = document.createRange();
  range.selectNodeContents(texts.currentNode);
  const after = document.createRange();
  after.selectNodeContents(place.querySelector({1!r}));
  const [name, next] = [range, after].map(each => each.getBoundingClientRect());
  return texts.currentNode.data.includes("\u202e") && (next.left >= name.right - 1 || next.top >= name.bottom - 1);
}})()"""
"""Whether what follows a name in a place is drawn after it."""

FOREIGN = """async base => {
  const upload = base + "/_emulator/upload/b-1250000000.cos.r.x/a.pdf";
  const plain = {method: "POST", mode: "no-cors", body: '{"kind": "throttle"}'};
  const json = {method: "POST", headers: {"Content-Type": "application/json"}, body: '{"kind": "throttle"}'};
  const form = new FormData();
  form.append("kind", "throttle");
  const sent = [
    fetch(base + "/_emulator/faults", plain),
    fetch(base + "/_emulator/faults", json),
    fetch(base + "/_emulator/faults", {method: "POST", mode: "no-cors", body: form}),
    fetch(base + "/_emulator/faults", {method: "DELETE"}),
    fetch(upload, {method: "PUT", body: "x"}),
    fetch(base + "/_emulator/jobs/hold", {method: "POST", mode: "no-cors"}),
    fetch(base + "/").then(page => page.text()),
  ];
  return (await Promise.allSettled(sent)).map(one => one.value?.type ?? one.value ?? "failed");
}"""
"""What a page of another origin may try; an opaque answer tells it nothing."""


@pytest.fixture
async def browser(tmp_path: Path) -> AsyncIterator[Browser]:
    async with chromium(tmp_path) as found:
        yield found


@pytest.fixture
async def emulator() -> AsyncIterator[Emulator]:
    async with Emulator(settings=Settings(submit_delay=0)) as running:
        running.put_object(BUCKET, REGION, "seven.pdf", SEVEN.read_bytes())
        yield running


@pytest.fixture
async def cloud(emulator: Emulator) -> AsyncIterator[Cloud]:
    async with Cloud(emulator.url) as client:
        yield client


async def focused(browser: Browser, selector: str) -> None:
    """Press Tab until the element has the focus; each stop on the way can be seen."""
    for _ in range(80):
        await browser.press("Tab")
        # After the last stop the focus leaves the page and comes back.
        outlined = "getComputedStyle(document.activeElement).outlineStyle != 'none'"
        assert await browser.value(f"document.activeElement == document.body || {outlined}") is True
        if await browser.value(f"document.activeElement.matches({selector!r})"):
            return
    raise AssertionError(f"{selector} cannot be reached with Tab")


async def test_documents_that_are_dropped_become_jobs_whose_images_appear_by_themselves(
    emulator: Emulator, browser: Browser, tmp_path: Path
) -> None:
    """Several at once; one that is damaged says so. Their names are texts."""
    noise, evil = tmp_path / "noise.pdf", tmp_path / EVIL
    noise.write_bytes(b"no pdf at all")
    evil.write_bytes(SEVEN.read_bytes())
    await browser.open(emulator.url)
    await browser.drop("#upload", SEVEN, noise, evil)
    await browser.until(f"{CARDS} == 'Success,Failed,Success'")
    assert await browser.value(f"{DECODED}.then(images => images.length)") == 12
    text = await browser.text()
    for expected in ("seven-pages.pdf Success", "FileOpenFailed: The document is damaged", f"{EVIL} Success", "1 more"):
        assert expected in text
    assert await browser.value("document.title") == "jobs - docpreview-emulator"
    assert len(await browser.value("[...document.querySelectorAll('#uploads a')].map(link => link.href)")) == 3
    await check_looks(browser, emulator.url, tmp_path, first=DECODED)


async def test_a_document_of_the_file_field_is_uploaded_with_the_options_of_the_form(
    emulator: Emulator, browser: Browser
) -> None:
    """Bucket, kind of pages and password; the password is on no page."""
    await browser.open(emulator.url)
    values = {"bucket": "other-1250000000", "TgtType": "png", "DocPassword": "geheim"}
    for name, value in values.items():
        await browser.value(f"document.querySelector('#upload [name={name}]').value = {value!r}")
    await browser.choose("#files", SEVEN)
    await browser.until(f"{CARDS} == 'Success'")
    (job,) = emulator.jobs
    assert (job.bucket.name, job.spec.process["TgtType"]) == ("other-1250000000", "png")
    await browser.open(f"{emulator.url}/jobs/{job.job_id}")
    assert await browser.value(f"{DECODED}.then(images => images.length)") == 7
    text = await browser.text()
    assert "DocPassword ***" in text
    assert "geheim" not in text


async def test_a_name_that_turns_the_direction_of_writing_turns_nothing_beside_it(
    emulator: Emulator, cloud: Cloud, browser: Browser, tmp_path: Path
) -> None:
    """U+202E in a key, in the lists of uploads, jobs and requests and on the page of the job."""
    document = tmp_path / "safe\u202efdp.exe.pdf"
    document.write_bytes(SEVEN.read_bytes())
    await browser.open(emulator.url)
    await browser.choose("#files", document)
    await browser.until(f"{CARDS} == 'Success' && document.querySelector('#uploads a')")
    await cloud.fetch(document.name)
    await browser.until("document.querySelector('#request-0')")
    for place, after in (("#uploads li", "a"), ("#job-list p", ".state"), ("#request-list summary", ".state")):
        assert await browser.value(BESIDE.format(place, after)) is True, place
    await browser.open(f"{emulator.url}/jobs/{emulator.jobs[0].job_id}")
    assert await browser.value(BESIDE.format("h2", ".state")) is True
    assert await browser.value("document.title.startsWith('\u2068' + 'safe')") is True


@pytest.mark.parametrize(("field", "value"), [("bucket", "no bucket"), ("bucket", "bad"), ("region", "Nowhere!")])
async def test_an_upload_that_is_refused_says_why_in_the_words_of_the_form(
    emulator: Emulator, browser: Browser, field: str, value: str
) -> None:
    await browser.open(emulator.url)
    await browser.value(f"document.querySelector('#upload [name={field}]').value = {value!r}")
    await browser.choose("#files", SEVEN)
    await browser.until("document.querySelector('#uploads .problem')")
    said = await browser.value("document.querySelector('#uploads').innerText")
    assert said.startswith("seven-pages.pdf: bucket and region must look like examplebucket-1250000000 and")
    assert emulator.jobs == []


async def test_an_empty_page_fits_every_window_and_can_be_read_by_day_and_night(
    emulator: Emulator, browser: Browser, tmp_path: Path
) -> None:
    await check_looks(browser, emulator.url, tmp_path, first=OPEN_ALL)
    assert "No jobs yet. Drop a document above" in await browser.text()


async def test_requests_with_all_that_they_have_fit_every_window(
    emulator: Emulator, cloud: Cloud, browser: Browser, tmp_path: Path
) -> None:
    """Long keys, refused signatures, faults, callbacks, and a job that failed."""
    job_id = await cloud.job_id("seven.pdf", "a" * 300 + "/${Number}.jpg", CallBack=f"{emulator.url}/nobody")
    await emulator.wait_for_job(job_id)
    emulator.add_fault("throttle", "list", retry_after=1)
    await cloud.list()
    emulator.add_fault("latency", "create", seconds=1, times=None)
    emulator.put_object(BUCKET, REGION, "noise-" * 40 + ".pdf", b"noise")
    await emulator.wait_for_job(await cloud.job_id("noise-" * 40 + ".pdf"))
    cloud.signer.secret_key = "another"
    await cloud.get(job_id)
    await check_looks(browser, emulator.url, tmp_path, first=OPEN_ALL)
    text = await browser.text()
    assert re.search(rf"GET /doc_jobs/{job_id} 403 SignatureDoesNotMatch signature refused", text)
    assert "503 SlowDown throttle" in text
    await check_looks(browser, f"{emulator.url}/jobs/{job_id}", tmp_path)


async def test_what_is_open_and_focused_stays_so_while_the_page_follows(
    emulator: Emulator, cloud: Cloud, browser: Browser
) -> None:
    """A request is opened and read while others come and a job ends."""
    emulator.hold_jobs()
    job_id = await cloud.job_id("seven.pdf", PageRanges="1")
    await browser.open(emulator.url)
    await browser.until(f"{CARDS}.match(/Running|Submitted/)")
    await focused(browser, "#request-list summary")
    await browser.press(" ")
    await browser.until("document.querySelector('#request-0 details').open")
    await cloud.list()
    emulator.release_jobs()
    await browser.until(f"{CARDS} == 'Success' && document.querySelector('#request-1')")
    assert await browser.value("document.querySelector('#request-0 details').open") is True
    assert await browser.value("document.querySelector('#request-1 details').open") is False
    assert await browser.value("document.activeElement == document.querySelector('#request-0 summary')") is True
    assert job_id in await browser.text()


async def test_faults_and_the_clock_are_set_with_the_keyboard_alone(
    emulator: Emulator, cloud: Cloud, browser: Browser
) -> None:
    """Each stop of the focus can be seen on the way."""
    await browser.open(emulator.url)
    await focused(browser, "#fault [name=kind]")
    await browser.value("document.querySelector('#fault [name=kind]').value = 'throttle'")
    await focused(browser, "#fault button")
    await browser.press(" ")
    await browser.until("document.querySelector('#fault-1')")
    assert "throttle of any request, once" in await browser.text()
    assert (await cloud.list()).status == 503
    await browser.until("document.querySelector('#no-fault')")
    await browser.value("document.querySelector('#fault [name=times]').value = ''")
    await focused(browser, "#fault button:not(.second)")
    await browser.press(" ")
    await browser.until("document.querySelector('#fault-1')")
    assert [fault.times for fault in emulator.faults] == [None]
    await focused(browser, "#clear-faults")
    await browser.press(" ")
    await browser.until("document.querySelector('#no-fault')")
    assert emulator.faults == []
    await focused(browser, "#clock [name=offset_seconds]")
    await browser.value("document.activeElement.value = '-90.5'")
    await focused(browser, "#clock button")
    await browser.press(" ")
    await browser.until("document.querySelector('#clock-now').innerText.endsWith('-90.5 s')")
    assert emulator.clock.offset_seconds == -90.5


async def test_a_fault_that_is_added_as_the_form_comes_makes_answers_late_by_a_second(
    emulator: Emulator, browser: Browser
) -> None:
    """Nothing is chosen; without its seconds the fault is refused with what it needs."""
    await browser.open(emulator.url)
    await browser.value("document.querySelector('#fault button').click()")
    await browser.until("document.querySelector('#fault-1')")
    assert [(fault.kind, fault.seconds) for fault in emulator.faults] == [("latency", 1)]
    await browser.value("document.querySelector('#fault [name=seconds]').value = ''")
    await browser.value("document.querySelector('#fault button').click()")
    await browser.until("document.querySelector('#fault .problem').textContent")
    assert "latency needs seconds" in await browser.text()
    assert len(emulator.faults) == 1


@pytest.mark.parametrize("kind", ["twice", "early", "empty_page", "throttle", "other_job"])
async def test_a_chosen_kind_of_fault_comes_with_an_operation_and_seconds_that_fit_it(
    emulator: Emulator, browser: Browser, kind: str
) -> None:
    """Before it another kind, of which the same is true, had been chosen."""
    await browser.open(emulator.url)
    await choose_kind(browser, "throttle" if kind == "twice" else "wrong_token")
    await choose_kind(browser, kind)
    await browser.value("document.querySelector('#fault button').click()")
    await browser.until("document.querySelector('#fault-1')")
    (fault,) = emulator.faults
    operation = {"empty_page": "list", "throttle": "*"}.get(kind, "callback")
    assert (fault.kind, fault.operation, fault.seconds) == (kind, operation, 1 if kind == "early" else 0)


async def test_a_chosen_kind_of_fault_says_what_it_does(emulator: Emulator, browser: Browser) -> None:
    await browser.open(emulator.url)
    await choose_kind(browser, "drip")
    assert await browser.value("document.querySelector('#meaning').textContent") == MEANINGS[Kind.DRIP]


async def test_held_jobs_and_paused_queues_go_on_by_a_click(emulator: Emulator, browser: Browser) -> None:
    queue = emulator.queue_id(BUCKET, REGION)
    emulator.hold_jobs()
    emulator.pause_queue(queue)
    await browser.open(emulator.url)
    await browser.value("document.querySelector('[data-post$=release]').click()")
    await browser.until("!document.querySelector('[data-post$=release]')")
    await browser.value("document.querySelector('[data-post$=resume]').click()")
    await browser.until("!document.querySelector('[data-post$=resume]')")


async def choose_kind(browser: Browser, kind: str) -> None:
    await browser.value(f"document.querySelector('#fault [name=kind]').value = {kind!r}")
    await browser.value("document.querySelector('#fault [name=kind]').dispatchEvent(new Event('change'))")


async def test_a_fault_that_is_none_says_why(emulator: Emulator, browser: Browser) -> None:
    await browser.open(emulator.url)
    await choose_kind(browser, "reverse")
    await browser.value("document.querySelector('#fault button').click()")
    await browser.until("document.querySelector('#fault .problem').textContent")
    assert "reverse needs times of at least 2" in await browser.text()
    assert emulator.faults == []


async def test_the_page_says_when_the_emulator_has_gone_and_follows_when_it_is_back(
    browser: Browser, tmp_path: Path
) -> None:
    async with Emulator(tmp_path / "data") as emulator:
        await browser.open(emulator.url)
        await browser.until("document.querySelector('#connection').textContent == 'live'")
    await browser.until("document.querySelector('#connection').textContent == 'the emulator does not answer'")
    async with Emulator(tmp_path / "data", port=emulator.port) as again:
        again.add_fault("throttle", times=None)
        await browser.until("document.querySelector('#connection').textContent == 'live'")
        await browser.until("document.querySelector('#fault-1')")


async def test_with_a_thousand_long_jobs_only_the_images_that_are_seen_are_loaded(
    browser: Browser, tmp_path: Path
) -> None:
    """Twenty jobs of a page, sixty images of a job; the rest is loaded when somebody comes there."""
    ids = ended_jobs(1000, 60, tmp_path / "data")
    async with Emulator(tmp_path / "data") as emulator:
        emulator.put_object(BUCKET, REGION, "seven.pdf", SEVEN.read_bytes())
        async with Cloud(emulator.url) as cloud:
            await emulator.wait_for_job(await cloud.job_id("seven.pdf", "first/${Number}", PageRanges="1"))
        image = emulator.get_object(BUCKET, REGION, "first/1")
        for number in range(1, 61):
            emulator.put_object(BUCKET, REGION, f"out/{number}.jpg", image)
        await browser.open(emulator.url)
        assert await browser.value("document.querySelectorAll('#job-list > li').length") == 20
        assert "1 to 20 of 1,001 jobs" in await browser.text()
        await browser.open(f"{emulator.url}/jobs/{ids[0]}", width=360)
        await browser.value(SEEN.format(0))
        assert await browser.value("document.images.length") == 60
        assert await browser.value("[...document.images].filter(image => image.naturalWidth).length") < 60
        await browser.value("document.images[59].scrollIntoView()")
        await browser.value(SEEN.format(59))


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost"])
async def test_a_page_of_another_origin_can_neither_change_nor_read_anything(
    emulator: Emulator, browser: Browser, name: str
) -> None:
    """Of another port of this machine, and of another name. The emulator's own page can."""

    async def show(_request: web.Request) -> web.Response:
        return web.Response(
            text="<!doctype html><title>elsewhere</title><link rel=icon href=data:,>", content_type="text/html"
        )

    emulator.add_fault("latency", seconds=0.01)
    app = web.Application()
    app.router.add_get("/", show)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        await browser.open(f"http://{name}:{runner.addresses[0][1]}/")
        answers = await browser.value(f"({FOREIGN})({emulator.url!r})")
    finally:
        await runner.cleanup()
    assert answers == ["opaque", "failed", "opaque", "failed", "failed", "opaque", "failed"]
    assert [fault.kind for fault in emulator.faults] == ["latency"]
    await browser.open(emulator.url)
    await browser.choose("#files", SEVEN)
    await browser.until(f"{CARDS} == 'Success'")
    assert len(emulator.jobs) == 1
