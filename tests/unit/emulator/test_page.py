"""The page at `/`: what it shows of the emulator, and what it never shows."""

import json
import re
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from yarl import URL

from docpreview_emulator import Emulator, Settings

from .cloud_client import BUCKET, COS_HOST, REGION, XML, Cloud, create_body
from .ended_jobs import ended_jobs
from .pdf_files import pdf

EVIL = "\"'><img src=x onerror=alert(1)><script>alert(2)</script>{{ 7 * 7 }}"


class _Reader(HTMLParser):
    """Parser of a page: its visible text and its tags."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


@dataclass
class Shown:
    """A page as it came."""

    status: int
    headers: Any
    html: str

    def __post_init__(self) -> None:
        reader = _Reader()
        reader.feed(self.html)
        self.text = " ".join(" ".join(reader.texts).split())
        self.tags = reader.tags

    def all(self, tag: str, name: str) -> list[str]:
        return [attributes[name] for found, attributes in self.tags if found == tag and name in attributes]


@dataclass
class Visitor:
    """Somebody with a browser at the emulator's own address."""

    session: aiohttp.ClientSession
    url: str

    async def open(self, path: str = "/") -> Shown:
        async with self.session.get(self.url + path) as response:
            return Shown(response.status, response.headers, await response.text())

    async def fetch(self, path: str) -> tuple[int, str, bytes]:
        async with self.session.get(self.url + path) as response:
            return response.status, response.headers["Content-Type"], await response.read()

    async def create(self, **given: object) -> tuple[int, dict[str, str]]:
        async with self.session.post(f"{self.url}/_emulator/jobs", json=given) as response:
            return response.status, await response.json()

    async def created(self, key: str, **process: str) -> str:
        status, answer = await self.create(bucket=BUCKET, region=REGION, key=key, process=process)
        assert status == 200, answer
        return answer["job_id"]


@pytest.fixture
async def visitor(emulator: Emulator) -> AsyncIterator[Visitor]:
    async with aiohttp.ClientSession() as session:
        yield Visitor(session, emulator.url)


async def test_the_page_is_at_the_emulators_own_address_and_the_clouds_hosts_keep_their_route(
    visitor: Visitor, cloud: Cloud
) -> None:
    page = await visitor.open()
    assert (page.status, page.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "Drop documents here" in page.text
    assert json.loads((await cloud.send("GET", "/")).body) == {"CIStatus": "on"}


async def test_an_emulator_without_jobs_says_how_to_get_one_and_what_the_empty_lists_will_show(
    visitor: Visitor,
) -> None:
    text = (await visitor.open()).text
    assert "No jobs yet. Drop a document above, or let a client create one: it connects to" in text
    assert f"{visitor.url} and names the cloud's host, {BUCKET}.ci.{REGION}.myqcloud.com" in text
    assert "No requests yet. What clients send" in text
    assert "No callbacks yet. One is sent when a job ends whose create has a CallBack" in text
    assert "None: each request is carried out as it comes. Add one" in text


async def test_an_uploaded_document_becomes_a_job_whose_page_images_are_on_the_page(
    emulator: Emulator, visitor: Visitor
) -> None:
    """Two requests without a signature do it, as the page's script and people with curl send them."""
    path = f"/_emulator/upload/{COS_HOST}/dropped/report%20%231.pdf"
    async with visitor.session.put(URL(visitor.url + path, encoded=True), data=pdf(8)) as response:
        assert response.status == 200
    job_id = await visitor.created("dropped/report #1.pdf")
    await emulator.wait_for_job(job_id)
    page = await visitor.open()
    assert re.search(r"report #1\.pdf Success .* 8 pages", page.text)
    assert page.all("img", "src") == [f"/jobs/{job_id}/pages/{number}" for number in range(6)]
    assert set(page.all("img", "loading")) == {"lazy"}
    assert "2 more" in page.text
    page = await visitor.open(f"/jobs/{job_id}")
    assert page.all("img", "src") == [f"/jobs/{job_id}/pages/{number}" for number in range(8)]
    assert f"{BUCKET}/previews/dropped/report #1.pdf/${{Number}}.jpg" in page.text
    status, kind, image = await visitor.fetch(page.all("img", "src")[7])
    assert (status, kind) == (200, "image/jpeg")
    assert image == emulator.get_object(BUCKET, REGION, "previews/dropped/report #1.pdf/8.jpg")


@pytest.mark.parametrize(("target", "kind"), [("jpg", "image/jpeg"), ("png", "image/png"), ("pdf", "application/pdf")])
async def test_pages_of_each_kind_can_be_opened(emulator: Emulator, visitor: Visitor, target: str, kind: str) -> None:
    """A PDF is a link, since no browser shows it as an image."""
    job_id = await visitor.created("seven.pdf", TgtType=target)
    assert (await emulator.wait_for_job(job_id)).state == "Success"
    page = await visitor.open(f"/jobs/{job_id}")
    assert len(page.all("img", "src")) == (0 if target == "pdf" else 7)
    assert (await visitor.fetch(f"/jobs/{job_id}/pages/0"))[:2] == (200, kind)


async def test_a_create_for_a_workbook_names_its_sheets_and_keeps_the_options_of_the_cloud(
    emulator: Emulator, visitor: Visitor
) -> None:
    emulator.put_object(BUCKET, REGION, "a.xlsx", b"no workbook")
    job = emulator.job(await visitor.created("a.xlsx", TgtType="png", Zoom="150"))
    assert job.spec.output.object == "previews/a.xlsx/${SheetID}/${Number}.png"
    assert job.spec.process["Zoom"] == "150"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"key": ""}, "key must be given; accepted: bucket, region, key, process"),
        ({"key": 7}, "key is of the wrong type"),
        ({"key": "gone.pdf"}, f"there is no object gone.pdf in {BUCKET}: upload it first"),
        ({"bucket": "no bucket"}, "must look like examplebucket-1250000000 and ap-chongqing"),
        ({"process": {"Colour": "red"}}, "process must have texts by the names: Comments, DocPassword"),
        ({"process": {"Zoom": 100}}, "process must have texts by the names"),
        ({"process": {"Zoom": "big"}}, "DocProcess/Zoom is not an integer."),
        ({"process": {"PageRanges": "3-1"}}, "DocProcess/PageRanges must look like 1,2-4,7."),
        ({"colour": "red"}, "unknown keys ['colour']; accepted: bucket, region, key, process"),
    ],
)
async def test_a_mistaken_create_is_400_and_says_what_to_do(
    emulator: Emulator, visitor: Visitor, change: dict[str, object], message: str
) -> None:
    status, answer = await visitor.create(**{"bucket": BUCKET, "region": REGION, "key": "seven.pdf", **change})
    assert status == 400
    assert message in answer["error"]
    assert emulator.accepted_jobs == 0


async def test_a_create_in_a_bucket_whose_service_is_off_is_refused_and_waits_in_a_paused_queue(
    emulator: Emulator, visitor: Visitor
) -> None:
    """As creates of the cloud are."""
    emulator.pause_queue(emulator.queue_id(BUCKET, REGION))
    assert emulator.job(await visitor.created("seven.pdf")).state == "Pause"
    emulator.unbind_bucket(BUCKET, REGION)
    status, answer = await visitor.create(bucket=BUCKET, region=REGION, key="seven.pdf")
    assert (status, answer["error"]) == (400, f"the document service of {BUCKET} is off: bind the bucket first")


async def test_a_failed_job_shows_its_code_and_message(emulator: Emulator, visitor: Visitor) -> None:
    emulator.put_object(BUCKET, REGION, "empty.pdf", b"")
    job_id = await visitor.created("empty.pdf")
    await emulator.wait_for_job(job_id)
    for path in ("/", f"/jobs/{job_id}"):
        text = (await visitor.open(path)).text
        assert "empty.pdf Failed" in text
        assert "-3008: The document is empty." in text
    assert "This job has no page images." in text


async def test_requests_show_method_path_signature_and_reply(
    emulator: Emulator, visitor: Visitor, cloud: Cloud
) -> None:
    """Newest first."""
    await cloud.list()
    assert re.search(r"GET /doc_jobs 200 signature valid .* Reply .*<Response>", (await visitor.open()).text)
    await cloud.raw("GET", "/doc_jobs/d1", headers={"host": COS_HOST.replace(".cos.", ".ci.")})
    text = (await visitor.open()).text
    assert re.search(r"GET /doc_jobs/d1 403 MissingAuthorization signature refused", text)
    assert "MissingAuthorization: The request is not signed." in text
    assert text.index("/doc_jobs/d1") < text.index("GET /doc_jobs 200")
    emulator.clear_requests()
    cloud.signer.secret_key = "another"
    await cloud.list()
    assert "SignatureDoesNotMatch: The Signature you specified is invalid." in (await visitor.open()).text
    emulator.clear_requests()
    emulator.add_fault("drop_before", times=None)
    with pytest.raises(aiohttp.ClientError):
        await cloud.list()
    assert re.search(r"GET /doc_jobs no reply drop_before signature signature not checked", (await visitor.open()).text)


async def test_requests_have_the_body_that_came_and_a_link_to_their_job(visitor: Visitor, cloud: Cloud) -> None:
    job_id = await cloud.job_id("seven.pdf", UserData="order-7")
    page = await visitor.open()
    assert "<UserData>order-7</UserData>" in page.text
    assert f"<JobId>{job_id}</JobId>" in page.text
    assert page.all("a", "href").count(f"/jobs/{job_id}") >= 2


async def test_of_a_long_body_only_the_first_is_shown(visitor: Visitor, cloud: Cloud) -> None:
    """The page is read again every second."""
    await cloud.create("seven.pdf", UserData="long" * 50_000)
    page = await visitor.open()
    assert "longlong" in page.text
    assert "... cut after 4000 characters" in page.text
    assert len(page.html) < 20_000


async def test_the_bytes_of_objects_are_no_reply_that_is_shown_but_lists_and_refusals_are(
    visitor: Visitor, cloud: Cloud
) -> None:
    await cloud.put("a.txt", b"what the object holds")
    await cloud.fetch("a.txt")
    await cloud.fetch("gone.txt")
    await cloud.send("GET", "/", host=COS_HOST)
    text = (await visitor.open()).text
    assert "PUT /a.txt 200" in text
    assert "what the object holds" not in text
    assert "<Code>NoSuchKey</Code>" in text
    assert "<Contents> <Key>a.txt</Key>" in text


@pytest.mark.parametrize(
    "password",
    ["<DocPassword>geheim</DocPassword>", "<DocPassword ><![CDATA[geheim]]></DocPassword>", "<DocPassword>geheim"],
)
async def test_passwords_of_documents_are_masked_on_the_page_and_in_the_list_of_requests(
    visitor: Visitor, cloud: Cloud, password: str
) -> None:
    """In bodies, also in those that are no XML, in replies, and among the options of a job."""
    body = create_body("seven.pdf", raw=password)
    reply = await cloud.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)
    texts = [await visitor.open(), await visitor.open("/_emulator/requests")]
    if reply.status == 200:
        texts.append(await visitor.open(f"/jobs/{reply.text('JobsDetail/JobId')}"))
        assert "DocPassword ***" in texts[-1].text
    for shown in texts:
        assert "***" in shown.html
        assert "geheim" not in shown.html


async def test_no_signature_token_or_callback_address_is_on_the_page(emulator: Emulator, visitor: Visitor) -> None:
    """Neither in headers nor in queries, bodies and replies."""
    async with Cloud(emulator.url) as cloud:
        job_id = await cloud.job_id("seven.pdf", CallBack="http://user:pass@127.0.0.1:1/hidden-path?t=hidden-query")
        params = cloud.signer.sign("GET", "/seven.pdf", {}, {"host": COS_HOST})
        await cloud.raw(
            "GET", "/seven.pdf", params={**params, "x-cos-security-token": "hidden-token"}, headers={"host": COS_HOST}
        )
        await cloud.send(
            "GET", "/doc_jobs", params={"tag": "DocProcess"}, headers={"x-ci-security-token": "hidden-token"}
        )
        image = (
            f"<DocWatermark><Type>1</Type><Image>http://{COS_HOST}/i.png?q-signature={'a1' * 20}</Image></DocWatermark>"
        )
        await cloud.create("seven.pdf", raw=image)
    for path in ("/", f"/jobs/{job_id}"):
        html = (await visitor.open(path)).html
        assert not re.search(r"hidden|user:pass|[0-9a-f]{40}", html)
    html = (await visitor.open()).html
    assert "q-signature=***" in html
    assert "&lt;CallBack&gt;http://127.0.0.1:1/***&lt;/CallBack&gt;" in html


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("http://user:pass@127.0.0.1:1/hidden?t=hidden#hidden", "http://127.0.0.1:1/***"),
        ("<![CDATA[https://user:pass@[::1]:1/a]hidden?t=<hidden]]>", "https://[::1]:1/***"),
        ("http://127.0.0.1<!-- -->/hidden", "***"),
        ("http://user:hid/den@127.0.0.1/", "***"),
        ("no", "no"),
    ],
)
async def test_the_list_of_requests_and_the_page_show_scheme_and_host_of_a_callback_address_only(
    emulator: Emulator, visitor: Visitor, cloud: Cloud, address: str, shown: str
) -> None:
    """Whether the create is accepted or not; a test that runs the emulator itself has the whole address."""
    body = create_body("seven.pdf").replace(b"</Operation>", f"<CallBack>{address}</CallBack></Operation>".encode())
    await cloud.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)
    html = (await visitor.open()).html
    (record,) = json.loads((await visitor.open("/_emulator/requests")).html)
    assert f"<CallBack>{shown}</CallBack>" in record["body"]
    assert f"&lt;CallBack&gt;{shown}&lt;/CallBack&gt;" in html
    assert not re.search(r"hidden|hid/den|user:pass", html + str(record))
    assert f"<CallBack>{address}</CallBack>".encode() in emulator.requests[0].body


async def test_an_address_that_is_cut_with_its_text_shows_no_password(visitor: Visitor, cloud: Cloud) -> None:
    """The page shows the first 4000 characters of a body."""
    opening = b"<Request><CallBack>"
    body = b" " * (4000 - len(opening) - len("http://user:hid")) + opening + b"http://user:hidden@127.0.0.1/"
    await cloud.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)
    html = (await visitor.open()).html
    assert "&lt;CallBack&gt;***" in html
    assert "user:hid" not in html


async def test_hostile_names_and_texts_are_shown_as_text(emulator: Emulator, visitor: Visitor, cloud: Cloud) -> None:
    """Of documents, states, requests and faults; none of them becomes markup or a template."""
    key = f"{EVIL}.pdf"
    emulator.put_object(BUCKET, REGION, key, pdf(1))
    job_id = await cloud.job_id(key, f"{EVIL.replace('<', '&lt;')}/${{Number}}.jpg", UserData=EVIL)
    await emulator.wait_for_job(job_id)
    emulator.set_job_state(job_id, "Failed", code=EVIL, message=EVIL)
    emulator.add_fault("error", "get", code=EVIL, message=EVIL)
    await cloud.raw("GET", f"/{EVIL}", params={EVIL: EVIL}, headers={"host": COS_HOST, "User-Agent": EVIL})
    await cloud.get(job_id)
    emulator.add_fault("error", "list", code=EVIL, message=EVIL)
    for path in ("/", f"/jobs/{job_id}", f"/?state={EVIL}&jobs={EVIL}&requests=-1", "/jobs/<script>alert(3)"):
        page = await visitor.open(path)
        assert page.status in {200, 404}
        assert [attributes for tag, attributes in page.tags if tag == "script"] == [
            {"src": "/_emulator/page.js", "defer": ""}
        ]
        assert "onerror" not in {name for _, attributes in page.tags for name in attributes}
    assert EVIL in (await visitor.open(f"/jobs/{job_id}")).text


@pytest.mark.parametrize("path", ["/", "/jobs/d0", "/jobs/d0/pages/0", "/_emulator/page.js", "/_emulator/page.css"])
async def test_scripts_and_styles_come_from_the_emulator_alone_and_no_page_can_be_framed(
    visitor: Visitor, path: str
) -> None:
    """The Content-Security-Policy says so, and nothing of a page needs more."""
    page = await visitor.open(path)
    policy = page.headers["Content-Security-Policy"].split("; ")
    assert policy[:4] == ["default-src 'none'", "script-src 'self'", "style-src 'self'", "img-src 'self'"]
    assert {"base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'"} <= set(policy)
    assert "unsafe" not in page.headers["Content-Security-Policy"]
    assert page.headers["X-Content-Type-Options"] == "nosniff"
    assert page.headers["Referrer-Policy"] == "no-referrer"
    if "html" in page.headers["Content-Type"]:
        assert not {name for _, attributes in page.tags for name in attributes if name.startswith(("on", "style"))}
        assert not [tag for tag, attributes in page.tags if tag == "style" or (tag == "script" and not attributes)]
        linked = [value for name in ("src", "href") for tag, _ in page.tags for value in page.all(tag, name)]
        assert all(value.startswith(("/", "#", "?")) and not value.startswith("//") for value in linked)


async def test_an_output_that_somebody_replaced_by_markup_is_not_served(emulator: Emulator, visitor: Visitor) -> None:
    """Only what begins as an image or a PDF is, whatever type it was put with."""
    job_id = await visitor.created("seven.pdf")
    await emulator.wait_for_job(job_id)
    for number, content in enumerate((b"<script>alert(1)</script>", b"<svg onload=alert(1)>"), start=1):
        emulator.put_object(BUCKET, REGION, f"previews/seven.pdf/{number}.jpg", content)
        assert (await visitor.fetch(f"/jobs/{job_id}/pages/{number - 1}"))[0] == 404
    emulator.delete_object(BUCKET, REGION, "previews/seven.pdf/3.jpg")
    assert (await visitor.fetch(f"/jobs/{job_id}/pages/2"))[0] == 404
    assert (await visitor.fetch(f"/jobs/{job_id}/pages/7"))[0] == 404
    assert (await visitor.fetch(f"/jobs/{job_id}/pages/3"))[0] == 200


@pytest.mark.parametrize(("kind", "policy"), [("text/html", "sandbox"), ("application/pdf", None)])
async def test_an_object_that_a_browser_opens_cannot_use_the_page_with_its_scripts(
    cloud: Cloud, kind: str, policy: str | None
) -> None:
    """It is at the same address as the page. At the cloud's own hosts objects are as the cloud has them."""
    await cloud.send(
        "PUT", "/a.html", host=COS_HOST, headers={"content-type": kind}, body=b"<script>fetch('/')</script>"
    )
    signed = cloud.signer.sign("GET", "/a.html", {}, {"host": COS_HOST})
    opened = await cloud.raw("GET", f"/_emulator/objects/{COS_HOST}/a.html", params=signed)
    assert (opened.status, opened.headers["Content-Type"]) == (200, kind)
    assert opened.headers.get("Content-Security-Policy") == policy
    assert opened.headers["X-Content-Type-Options"] == "nosniff"
    assert "Content-Security-Policy" not in (await cloud.fetch("a.html")).headers


async def test_a_job_that_is_not_there_is_a_page_that_says_so(visitor: Visitor) -> None:
    page = await visitor.open("/jobs/d00")
    assert page.status == 404
    assert "There is no job d00 here." in page.text


async def test_of_a_thousand_jobs_the_newest_twenty_are_shown_with_ways_to_the_others(tmp_path: Path) -> None:
    ids = ended_jobs(1000, 3, tmp_path)
    async with Emulator(tmp_path) as emulator, aiohttp.ClientSession() as session:
        visitor = Visitor(session, emulator.url)
        page = await visitor.open()
        shown = [found for found in page.all("li", "id") if found.startswith("d")]
        assert shown == ids[:-21:-1]
        assert "all 1,000" in page.text
        assert "1 to 20 of 1,000 jobs" in page.text
        assert "?jobs=2#jobs" in page.all("a", "href")
        page = await visitor.open("/?jobs=50")
        assert [found for found in page.all("li", "id") if found.startswith("d")] == ids[19::-1]
        assert "981 to 1000 of 1,000 jobs" in page.text
        assert "?jobs=49#jobs" in page.all("a", "href")
        assert "?jobs=51#jobs" not in page.all("a", "href")
        assert (await visitor.open("/?jobs=99")).text.count("981 to 1000") == 1


async def test_the_images_of_a_long_document_are_shown_sixty_at_a_time_and_load_when_they_are_seen(
    tmp_path: Path,
) -> None:
    (job_id,) = ended_jobs(1, 130, tmp_path)
    async with Emulator(tmp_path) as emulator, aiohttp.ClientSession() as session:
        page = await Visitor(session, emulator.url).open(f"/jobs/{job_id}?pages=3")
        assert page.all("img", "src") == [f"/jobs/{job_id}/pages/{number}" for number in range(120, 130)]
        assert set(page.all("img", "loading")) == {"lazy"}
        assert "121 to 130 of 130 page images" in page.text


async def test_jobs_can_be_looked_at_by_their_state(emulator: Emulator, visitor: Visitor) -> None:
    emulator.put_object(BUCKET, REGION, "noise.pdf", b"noise")
    for key in ("seven.pdf", "noise.pdf"):
        await emulator.wait_for_job(await visitor.created(key, PageRanges="1"))
    page = await visitor.open("/?state=Failed")
    assert "all 2 Success 1 Failed 1" in page.text
    assert "noise.pdf Failed" in page.text
    assert "seven.pdf" not in page.text
    assert "No job is Running." in (await visitor.open("/?state=Running")).text


async def test_faults_callbacks_and_the_clock_are_on_the_page(
    emulator: Emulator, visitor: Visitor, cloud: Cloud
) -> None:
    emulator.add_fault("throttle", "list", times=2, retry_after=1.5)
    emulator.add_fault("latency", seconds=3, times=None)
    text = (await visitor.open()).text
    assert "throttle of list, 2 times status 503, code SlowDown, retry_after 1.5" in text
    assert "latency of any request, until cleared seconds 3" in text
    emulator.clear_faults()
    emulator.clock.offset_seconds = -90.5
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d:\d\d UTC -90\.5 s", (await visitor.open()).text)
    job_id = await cloud.job_id("seven.pdf", PageRanges="1", CallBack=f"{emulator.url}/nobody")
    await emulator.wait_for_job(job_id)
    deadline = time.monotonic() + 30
    while not emulator.callbacks and time.monotonic() < deadline:
        await cloud.get(job_id)
    assert f"{job_id} {emulator.callbacks[0].status}" in (await visitor.open()).text


async def test_that_jobs_are_held_and_queues_paused_is_on_the_page(emulator: Emulator, visitor: Visitor) -> None:
    queue = emulator.queue_id(BUCKET, REGION)
    assert "held" not in (await visitor.open()).text
    emulator.hold_jobs()
    emulator.pause_queue(queue)
    text = (await visitor.open()).text
    assert "Jobs are held in Running. Release them" in text
    assert f"The queue {queue} of {BUCKET} is paused. Resume it" in text


async def test_converters_and_fonts_are_found_or_the_page_says_how_to_install_them(
    visitor: Visitor, tmp_path: Path
) -> None:
    assert re.search(r"LibreOffice (found|missing) .*fonts for Chinese, Japanese, Korean", (await visitor.open()).text)
    async with Emulator(tmp_path / "bare", settings=Settings(soffice="")) as bare:
        text = (await Visitor(visitor.session, bare.url).open()).text
    assert "LibreOffice missing" in text
    assert "apt-get install --no-install-recommends libreoffice-impress" in text


async def test_long_lists_of_requests_have_pages_and_stay_themselves_while_new_ones_come(
    visitor: Visitor, cloud: Cloud
) -> None:
    for _ in range(25):
        await cloud.list()
    page = await visitor.open("/?requests=2")
    assert [found for found in page.all("li", "id") if found.startswith("request")] == [
        f"request-{number}" for number in range(4, -1, -1)
    ]
    assert "21 to 25 of 25 requests" in page.text
    assert "?requests=1#requests" in page.all("a", "href")


async def test_a_path_with_bytes_that_are_no_text_does_not_break_the_page(visitor: Visitor) -> None:
    async with visitor.session.get(URL(f"{visitor.url}/%ff%fe", encoded=True), headers={"Host": COS_HOST}) as response:
        assert response.status == 403
    page = await visitor.open()
    assert page.status == 200
    assert "GET /?? 403" in page.text
