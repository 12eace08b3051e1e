"""Jobs over the wire: create, get, list, queues and the document service of a bucket."""

import asyncio
from base64 import b64encode

import pytest

from docpreview_emulator import Emulator, Settings
from docpreview_emulator.clock import cloud_time

from .cloud_client import BUCKET, CI_HOST, REGION, XML, Cloud, create_body
from .pdf_files import pdf


async def test_a_new_job_is_answered_like_the_vendors_sample(cloud: Cloud) -> None:
    """The answer is the vendor's sample: Submitted with Code Success, times not reached are dashes."""
    reply = await cloud.create("seven.pdf", "/test_doc/abc_${Number}.jpg", PageRanges="1,3", Quality=109, EndPage=-1)
    detail = reply.xml.find("JobsDetail")
    assert detail is not None
    assert {child.tag: child.text for child in detail if not len(child)}.items() >= {
        "Code": "Success",
        "Message": None,
        "Tag": "DocProcess",
        "State": "Submitted",
        "StartTime": "-",
        "EndTime": "-",
    }.items()
    process = detail.find("Operation/DocProcess")
    assert process is not None
    assert {child.tag: child.text for child in process} == {
        "Comments": "1",
        "DocPassword": None,
        "EndPage": "-1",
        "ImageDpi": "96",
        "ImageParams": None,
        "PageRanges": "1,3",
        "PaperDirection": "0",
        "PaperSize": "0",
        "PicPagination": "0",
        "Quality": "109",
        "SheetId": "0",
        "SrcType": None,
        "StartPage": "0",
        "TgtType": None,
        "Zoom": "100",
    }
    assert reply.headers["Server"] == "tencent-ci"
    assert reply.headers["x-ci-request-id"]
    assert reply.headers["Content-Type"] == XML


async def test_a_finished_job_names_and_counts_pages_like_the_vendors_sample(emulator: Emulator, cloud: Cloud) -> None:
    """`${Number}` with PageRanges 1,3 gives abc_1 and abc_3, and the total counts the source, as in the sample."""
    job_id = await cloud.job_id("seven.pdf", "/test_doc/abc_${Number}.jpg", PageRanges="1,3", UserData="m&m <1>")
    await emulator.wait_for_job(job_id)
    reply = await cloud.get(job_id)
    result = "JobsDetail/Operation/DocProcessResult"
    assert reply.text("JobsDetail/State") == "Success"
    assert reply.texts(f"{result}/PageInfo/PageNo") == ["1", "3"]
    assert reply.texts(f"{result}/PageInfo/TgtUri") == ["/test_doc/abc_1.jpg", "/test_doc/abc_3.jpg"]
    counts = ("TotalPageCount", "SuccPageCount", "FailPageCount")
    assert [reply.text(f"{result}/{name}") for name in counts] == ["7", "2", "0"]
    assert reply.text("JobsDetail/Operation/UserData") == "m&m <1>"
    assert reply.text("JobsDetail/Operation/JobLevel") == "0"
    page = await cloud.fetch("test_doc/abc_3.jpg")
    assert (page.status, page.headers["Content-Type"], page.body[:2]) == (200, "image/jpeg", b"\xff\xd8")


async def test_a_missing_job_is_named_in_a_reply_of_status_200(cloud: Cloud) -> None:
    """A job that does not exist is no HTTP error: its id comes back in NonExistJobIds."""
    reply = await cloud.get("d" + "0" * 32)
    assert reply.status == 200
    assert reply.text("NonExistJobIds") == "d" + "0" * 32
    assert reply.xml.find("JobsDetail") is None


async def test_a_job_is_missing_for_a_bucket_that_is_not_its_inputs(cloud: Cloud) -> None:
    job_id = await cloud.job_id("seven.pdf")
    reply = await cloud.send("GET", f"/doc_jobs/{job_id}", host=f"other-1250000000.ci.{REGION}.myqcloud.com")
    assert reply.text("NonExistJobIds") == job_id


async def test_a_job_is_missing_after_a_month_but_still_counted(emulator: Emulator, cloud: Cloud) -> None:
    job_id = await cloud.job_id("seven.pdf")
    await emulator.wait_for_job(job_id)
    emulator.clock.offset_seconds = cloud.signer.ahead = 31 * 86400
    assert (await cloud.get(job_id)).text("NonExistJobIds") == job_id
    assert (await cloud.list()).texts("JobsDetail/JobId") == []
    assert emulator.accepted_jobs == 1


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "MissingContent"),
        (b"<Request>", "MalformedXML"),
        (b"<Other/>", "MalformedXML"),
        (b'<!DOCTYPE r [<!ENTITY x "y">]><Request>&x;</Request>', "MalformedXML"),
        (b"<a>" * 40 + b"</a>" * 40, "MalformedXML"),
        (create_body("seven.pdf", Tag="DocWatermark"), "InvalidArgument"),
        (create_body("seven.pdf", "out/page.jpg"), "InvalidArgument"),
        (create_body("book.xlsx", "out/${Number}"), "InvalidArgument"),
        (create_body("seven.pdf", Quality="high"), "InvalidArgument"),
        (create_body("seven.pdf", PageRanges="3-1"), "InvalidArgument"),
        (create_body(""), "InvalidArgument"),
        (b"<Request><Tag>DocProcess</Tag><Input><Url>http://x/</Url></Input></Request>", "InvalidArgument"),
        (create_body("missing.pdf"), "ResourceNotFound"),
        (create_body("seven.pdf", QueueId="p0"), "QueueNotFound"),
        (b"<Request>" + b" " * 1024 * 1024 + b"</Request>", "EntityTooLarge"),
    ],
)
async def test_an_invalid_create_is_refused_and_makes_no_job(
    emulator: Emulator, cloud: Cloud, body: bytes, code: str
) -> None:
    reply = await cloud.send("POST", "/doc_jobs", headers={"content-type": XML}, body=body)
    assert (reply.status, reply.text("Code")) == (400, code)
    assert emulator.accepted_jobs == 0


async def test_a_create_needs_the_content_type_of_xml_and_a_right_digest(cloud: Cloud) -> None:
    body = create_body("seven.pdf")
    assert (await cloud.send("POST", "/doc_jobs", body=body)).text("Code") == "InvalidContentType"
    headers = {"content-type": XML, "content-md5": b64encode(b"0" * 16).decode()}
    assert (await cloud.send("POST", "/doc_jobs", headers=headers, body=body)).text("Code") == "InvalidContent"


async def test_an_unknown_path_or_method_is_refused(cloud: Cloud) -> None:
    assert (await cloud.send("GET", "/nothing")).text("Code") == "InvalidUrl"
    assert (await cloud.send("DELETE", "/doc_jobs/d1")).status == 405
    assert (await cloud.send("GET", "/docqueue", host=f"ci.{REGION}.myqcloud.com")).text("Code") == "InvalidHost"


async def test_a_list_in_pages_has_every_job_newest_first_or_oldest_first(emulator: Emulator, cloud: Cloud) -> None:
    """The token of the last page is empty."""
    emulator.hold_jobs()
    made = [await cloud.job_id("seven.pdf") for _ in range(5)]
    seen, token = [], ""
    for _ in range(3):
        page = await cloud.list(size="2", nextToken=token)
        seen += page.texts("JobsDetail/JobId")
        token = page.text("NextToken")
    assert (seen, token) == (made[::-1], "")
    assert (await cloud.list(orderByTime="Asc", size="100")).texts("JobsDetail/JobId") == made


async def test_with_list_delay_a_new_job_is_found_by_id_at_once_and_listed_later() -> None:
    async with Emulator(settings=Settings(list_delay=60)) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "seven.pdf", pdf(7))
        job_id = await cloud.job_id("seven.pdf")
        assert (await cloud.get(job_id)).text("JobsDetail/JobId") == job_id
        assert (await cloud.list()).texts("JobsDetail/JobId") == []
        emulator.clock.offset_seconds = 61
        assert (await cloud.list()).texts("JobsDetail/JobId") == [job_id]


async def test_without_echo_no_answer_shows_the_user_data_of_a_create() -> None:
    async with Emulator(settings=Settings(echo_user_data=False)) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "seven.pdf", pdf(7))
        made = await cloud.create("seven.pdf", UserData="ticket 7")
        answers = [made, await cloud.get(made.text("JobsDetail/JobId")), await cloud.list()]
        assert [answer.texts("JobsDetail/Operation/UserData") for answer in answers] == [[], [], []]
        assert [job.spec.user_data for job in emulator.jobs] == ["ticket 7"]


async def test_with_empty_pages_each_page_comes_after_as_many_and_no_job_is_lost() -> None:
    async with Emulator(settings=Settings(empty_pages=2)) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "seven.pdf", pdf(7))
        made = [await cloud.job_id("seven.pdf") for _ in range(3)]
        pages, token = [], ""
        for _ in range(6):
            answer = await cloud.list(orderByTime="Asc", size="2", nextToken=token)
            token = answer.text("NextToken")
            pages.append(answer.texts("JobsDetail/JobId"))
        assert (pages, token) == ([[], [], made[:2], [], [], made[2:]], "")


@pytest.mark.parametrize("order", ["Asc", "Desc"])
async def test_an_empty_page_leads_to_the_page_that_was_asked_for(emulator: Emulator, cloud: Cloud, order: str) -> None:
    """Also when it comes first, in the middle, or twice in a row."""
    emulator.put_object(BUCKET, REGION, "seven.pdf", pdf(7))
    made = [await cloud.job_id("seven.pdf") for _ in range(3)]
    emulator.add_fault("empty_page", "list", times=2)
    emulator.add_fault("empty_page", "list", skip=1)
    pages, token = [], ""
    while True:
        answer = await cloud.list(orderByTime=order, size="2", nextToken=token)
        pages.append(answer.texts("JobsDetail/JobId"))
        token = answer.text("NextToken") or ""
        if not token:
            break
    wanted = made if order == "Asc" else made[::-1]
    assert pages == [[], [], wanted[:2], [], wanted[2:]]


async def test_a_list_by_time_has_only_jobs_created_within_its_bounds(emulator: Emulator, cloud: Cloud) -> None:
    """Both bounds are inclusive and speak of whole seconds."""
    first = await cloud.job_id("seven.pdf")
    created = emulator.job(first).created
    emulator.clock.offset_seconds = 30
    second = await cloud.job_id("seven.pdf")
    assert (await cloud.list(startCreationTime=cloud_time(created + 10))).texts("JobsDetail/JobId") == [second]
    assert (await cloud.list(endCreationTime=cloud_time(created))).texts("JobsDetail/JobId") == [first]


async def test_a_list_by_state_and_queue_has_only_jobs_that_match_both(emulator: Emulator, cloud: Cloud) -> None:
    first, second = await cloud.job_id("seven.pdf"), await cloud.job_id("seven.pdf")
    emulator.set_job_state(first, "Cancel")
    emulator.set_job_state(second, "Failed", code="-1", message="because")
    queue = emulator.queue_id(BUCKET, REGION)
    assert (await cloud.list(states="Failed,Running", queueId=queue)).texts("JobsDetail/Message") == ["because"]
    assert (await cloud.list(states="Cancel", queueId="p0")).texts("JobsDetail/JobId") == []
    assert len((await cloud.list(states="All")).texts("JobsDetail")) == 2


@pytest.mark.parametrize(
    "params",
    [
        {"tag": "Other"},
        {"size": "101"},
        {"size": "x"},
        {"states": "Sleeping"},
        {"orderByTime": "Up"},
        {"nextToken": "12345"},
        {"startCreationTime": "2022-09-14 00:00:00"},
    ],
)
async def test_an_invalid_list_request_is_an_invalid_argument(cloud: Cloud, params: dict[str, str]) -> None:
    reply = await cloud.list(**params)
    assert (reply.status, reply.text("Code")) == (400, "InvalidArgument")


async def test_every_bucket_has_its_default_queue_and_unknown_ids_are_named(emulator: Emulator, cloud: Cloud) -> None:
    queue = emulator.queue_id(BUCKET, REGION)
    reply = await cloud.send("GET", "/docqueue", params={"queueIds": f"{queue},p0", "state": "All"})
    assert reply.texts("QueueList/QueueId") == [queue]
    assert reply.texts("QueueList/Name") == ["queue-doc-process-1"]
    assert reply.texts("NonExistPIDs/QueueID") == ["p0"]
    assert (await cloud.send("GET", "/docqueue", params={"state": "Paused"})).text("TotalCount") == "0"


async def test_jobs_of_a_paused_queue_wait_and_go_on_when_it_resumes(emulator: Emulator, cloud: Cloud) -> None:
    """They show Pause."""
    queue = emulator.queue_id(BUCKET, REGION)
    emulator.pause_queue(queue)
    job_id = await cloud.job_id("seven.pdf", QueueId=queue)
    assert (await cloud.get(job_id)).text("JobsDetail/State") == "Pause"
    assert (await cloud.send("GET", "/docqueue")).text("QueueList/State") == "Paused"
    emulator.resume_queue(queue)
    assert (await emulator.wait_for_job(job_id)).state == "Success"


async def test_a_submitted_job_is_paused_and_resumed_with_its_queue() -> None:
    """It becomes Pause and Submitted again."""
    async with Emulator(settings=Settings(submit_delay=60)) as emulator, Cloud(emulator.url) as cloud:
        emulator.put_object(BUCKET, REGION, "a.pdf", pdf(1))
        job_id = await cloud.job_id("a.pdf")
        queue = emulator.queue_id(BUCKET, REGION)
        emulator.pause_queue(queue)
        assert emulator.job(job_id).state == "Pause"
        emulator.resume_queue(queue)
        assert emulator.job(job_id).state == "Submitted"


async def test_no_more_jobs_run_at_once_than_the_queue_allows(emulator: Emulator, cloud: Cloud) -> None:
    """The others wait."""
    emulator.hold_jobs()
    made = [await cloud.job_id("seven.pdf", PageRanges="1") for _ in range(12)]
    async with asyncio.timeout(5):
        while len([job for job in emulator.jobs if job.state == "Running"]) < 10:
            await cloud.get(made[-1])
    assert [job.state for job in emulator.jobs] == ["Running"] * 10 + ["Submitted"] * 2
    emulator.release_jobs()
    assert {(await emulator.wait_for_job(job_id)).state for job_id in made} == {"Success"}


async def test_a_job_whose_state_is_set_by_hand_keeps_it(emulator: Emulator, cloud: Cloud) -> None:
    emulator.hold_jobs()
    job_id = await cloud.job_id("seven.pdf")
    emulator.set_job_state(job_id, "Running")
    emulator.release_jobs()
    other = await cloud.job_id("seven.pdf")
    await emulator.wait_for_job(other)
    assert emulator.job(job_id).state == "Running"


async def test_an_unbound_bucket_is_refused_until_it_is_bound_again(emulator: Emulator, cloud: Cloud) -> None:
    emulator.unbind_bucket(BUCKET, REGION)
    reply = await cloud.create("seven.pdf")
    assert (reply.status, reply.text("Code")) == (400, "DocBucketUnBinded")
    assert (await cloud.send("GET", "/")).body == b'{"CIStatus": "off"}'
    assert (await cloud.send("POST", "/docbucket")).text("DocBucket/Name") == BUCKET
    assert (await cloud.create("seven.pdf")).status == 200


async def test_the_bound_buckets_of_a_region_are_listed_on_its_own_host(emulator: Emulator, cloud: Cloud) -> None:
    """The call needs no bucket in its host."""
    emulator.bind_bucket(BUCKET, REGION)
    emulator.bind_bucket("other-1250000000", "ap-guangzhou")
    reply = await cloud.send("GET", "/docbucket", host=f"ci.{REGION}.myqcloud.com", params={"bucketName": "ex"})
    assert reply.texts("DocBucketList/Name") == [BUCKET]


async def test_any_bucket_in_any_region_makes_jobs_under_any_suffix(emulator: Emulator, cloud: Cloud) -> None:
    host = "b-1.ci.eu-frankfurt.tencentcos.cn:8089"
    emulator.put_object("b-1", "eu-frankfurt", "a.pdf", pdf(1))
    reply = await cloud.send("POST", "/doc_jobs", host=host, headers={"content-type": XML}, body=create_body("a.pdf"))
    assert reply.text("JobsDetail/Input/Region") == "eu-frankfurt"
    assert host != CI_HOST
