"""Creates that are lost, repeated and shared: a caller is told the job of its own create, or that it is not known."""

from __future__ import annotations

import asyncio
import uuid
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
from qcloud_cos import CosConfig, CosS3Client

from docpreview.v1.preview_job_pb2 import ObjectLocation
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest
from docpreview_gateway.wiring.gateway import Gateway
from tests.integration.conftest import BUCKET, REGION
from tests.integration.money import CHANGED, DOCUMENT, FENCE, OUTPUT, site

if TYPE_CHECKING:
    from pathlib import Path

    from tests.integration.money import Site

A, B = (str(uuid.UUID(int=number, version=4)) for number in (1, 2))
NOT_TOLD = {"CREATE_OUTCOME_UNKNOWN", "CREATE_OUTCOME_AMBIGUOUS", "CREATE_IN_PROGRESS"}

DROPPED: dict[str, Any] = {"kind": "drop_before"}
LOST: dict[str, Any] = {"kind": "drop_after"}
FAILED: dict[str, Any] = {"kind": "error"}
FAILED_AND_MADE: dict[str, Any] = {"kind": "error", "accepted": True}


@pytest.mark.parametrize("lost", [LOST, FAILED_AND_MADE], ids=str)
async def test_a_lost_reply_is_not_answered_with_the_job_of_the_document_that_was_there_before(
    tmp_path: Path, lost: dict[str, Any]
) -> None:
    """A create without `request_id` has made a job of the same document, output and options."""
    async with site(tmp_path) as here, Gateway(here.settings()) as gateway, here.caller(gateway) as caller:
        first = await caller.create()
        here.put(CHANGED)
        here.emulator.add_fault(operation="create", **lost)
        second = await caller.answer(request_id=A)
        assert second.job_id == here.emulator.jobs[1].job_id != first.job_id
        assert await caller.answer(request_id=A) == second
        assert here.made == {f"one:{DOCUMENT}": 1, f"one:{A}": 1}


@pytest.mark.parametrize("other_id", ["", B], ids=["without id", "with id"])
@pytest.mark.parametrize("lost", [DROPPED, LOST, FAILED, FAILED_AND_MADE], ids=str)
async def test_callers_that_share_an_output_are_told_their_own_jobs_after_a_loss(
    tmp_path: Path, lost: dict[str, Any], other_id: str
) -> None:
    """Each create ends with one job, and each caller is told its own, also while the other's alone is listed."""
    async with site(tmp_path) as here, Gateway(here.settings()) as gateway:
        async with here.caller(gateway, "one") as one, here.caller(gateway, "two") as two:
            here.emulator.add_fault(operation="create", **lost)
            early = await one.answer(request_id=A)
            other = await two.answer(request_id=other_id)
            await asyncio.sleep(FENCE)
            late = await one.answer(request_id=A)
        if early.job_id:
            assert here.owner(early.job_id) == f"one:{A}"
        else:
            assert early.reason in NOT_TOLD
        assert here.owner(other.job_id) == f"two:{other_id or DOCUMENT}"
        assert here.owner(late.job_id) == f"one:{A}"
        assert here.made == {f"one:{A}": 1, f"two:{other_id or DOCUMENT}": 1}


@pytest.mark.parametrize("lost", [DROPPED, LOST], ids=str)
async def test_without_echo_an_outcome_is_unknown_or_ambiguous_and_never_anothers_job(
    tmp_path: Path, lost: dict[str, Any]
) -> None:
    """The other caller's job is bound to its own record; an unbound one may be anybody's."""
    async with site(tmp_path, echo=False) as here, Gateway(here.settings()) as gateway:
        async with here.caller(gateway, "one") as one, here.caller(gateway, "two") as two:
            here.emulator.add_fault(operation="create", **lost)
            answers = [await one.answer(request_id=A), await two.answer(request_id=B)]
            await asyncio.sleep(FENCE)
            answers += [await one.answer(request_id=A), await two.answer(request_id=B)]
        assert {here.owner(each.job_id) for each in answers[1::2]} == {f"two:{B}"}
        assert answers[0].reason in NOT_TOLD
        if lost is LOST:
            assert answers[2].reason == "CREATE_OUTCOME_AMBIGUOUS"
        else:
            assert here.owner(answers[2].job_id) == f"one:{A}"
        assert here.made == {f"one:{A}": 1, f"two:{B}": 1}


@pytest.mark.parametrize("lost", [DROPPED, LOST], ids=str)
async def test_without_echo_a_lost_job_is_found_again_in_a_bucket_that_is_exclusive(
    tmp_path: Path, lost: dict[str, Any]
) -> None:
    """By document, output and options; those that the create leaves open the cloud may show as it likes."""
    async with site(tmp_path, echo=False) as here:
        bucket = {"name": BUCKET, "region": REGION, "credentials": "main", "exclusive": True}
        async with (
            Gateway(here.settings(buckets=[bucket, *here.policed["buckets"][1:]])) as gateway,
            here.caller(gateway) as one,
        ):
            here.emulator.add_fault(operation="create", **lost)
            early = await one.answer(request_id=A)
            assert early.reason in NOT_TOLD
            await asyncio.sleep(FENCE)
            late = await one.answer(request_id=A)
            assert here.owner(late.job_id) == f"one:{A}"
            assert here.made == {f"one:{A}": 1}


@pytest.mark.parametrize("echo", [True, False])
async def test_a_job_of_another_program_is_never_told_to_a_caller(tmp_path: Path, *, echo: bool) -> None:
    """The vendor's SDK makes a job of the same document, output and options while a create is lost.

    Where a job of ours has shown its marker, one without cannot be ours.
    """
    async with site(tmp_path, echo=echo) as here, Gateway(here.settings()) as gateway, here.caller(gateway) as caller:
        await caller.create(output="previews/earlier-${Number}.jpg")
        here.emulator.add_fault(operation="create", **DROPPED)
        early = await caller.answer(request_id=A)
        foreign = await make_foreign_job(here)
        await asyncio.sleep(FENCE)
        late = await caller.answer(request_id=A)
        assert early.reason in NOT_TOLD
        if echo:
            assert here.owner(late.job_id) == f"one:{A}"
        else:
            assert late.reason == "CREATE_OUTCOME_AMBIGUOUS"
            assert foreign in late.text
            assert here.made["foreign"] == 1
        assert here.owner(foreign) == "foreign"


async def make_foreign_job(here: Site) -> str:
    """A job by the vendor's SDK, which sends no user data."""
    keys = {"SecretId": "example-secret-id", "SecretKey": "EXAMPLEsecretKEY00000000000000000"}
    sdk = CosS3Client(CosConfig(Region=REGION, Scheme="http", Proxies={"http": here.emulator.url}, **keys))
    output = {"OutputBucket": BUCKET, "OutputRegion": REGION, "OutputObject": OUTPUT}
    with ThreadPoolExecutor(1) as thread:
        answer = await asyncio.get_running_loop().run_in_executor(
            thread, lambda: sdk.ci_create_doc_job(Bucket=BUCKET, InputObject=DOCUMENT, **output)
        )
    return str(answer["JobsDetail"]["JobId"])


async def test_an_empty_page_with_a_token_is_not_the_end_of_a_list(tmp_path: Path) -> None:
    """The job behind it is found at once, and after the fence no second one is made."""
    async with site(tmp_path) as here, Gateway(here.settings()) as gateway, here.caller(gateway) as caller:
        await caller.create()
        here.emulator.add_fault("drop_after", "create")
        here.emulator.add_fault("empty_page", "list", times=3)
        found = await caller.answer(request_id=A)
        assert here.owner(found.job_id) == f"one:{A}"
        here.emulator.add_fault("drop_after", "create")
        here.emulator.add_fault("drop_before", "list", times=8)
        assert (await caller.answer(request_id=B)).reason in NOT_TOLD
        here.emulator.clear_faults()
        await asyncio.sleep(FENCE)
        here.emulator.add_fault("empty_page", "list", times=3)
        assert here.owner((await caller.answer(request_id=B)).job_id) == f"one:{B}"
        assert here.made == {f"one:{DOCUMENT}": 1, f"one:{A}": 1, f"one:{B}": 1}


async def test_unknown_fields_and_empty_options_change_nothing_about_an_id(tmp_path: Path) -> None:
    """A newer client may send fields that this version does not know; a request without options has the defaults."""
    async with site(tmp_path) as here, Gateway(here.settings()) as gateway, here.caller(gateway) as caller:
        request = CreatePreviewJobRequest(
            bucket=BUCKET, input_object=DOCUMENT, output=ObjectLocation(object=OUTPUT), request_id=A
        )
        job = await caller.send(request)
        newer = CreatePreviewJobRequest.FromString(request.SerializeToString() + unknown_field(b"kept by nobody"))
        assert (await caller.send(newer)).job_id == job.job_id
        request.options.SetInParent()
        assert (await caller.send(request)).job_id == job.job_id
        newer.request_id = B
        await caller.send(newer)
        stored = b"".join(path.read_bytes() for path in here.folder.glob("state/creates.db*"))
        assert b64encode(unknown_field(b"kept by nobody"))[4:-4] not in stored
        assert here.emulator.accepted_jobs == 2


def unknown_field(value: bytes) -> bytes:
    """Field 1000 of this value, of the length-delimited kind."""
    tag = 1000 << 3 | 2
    return bytes([tag & 127 | 128, tag >> 7, len(value)]) + value


async def test_a_first_page_at_the_end_of_its_range_is_refused_and_not_sent(tmp_path: Path) -> None:
    """With `max_pages` the last page is computed from the first: it would be beyond every number of pages."""
    callers = {"few": {"options": {"max_pages": 10}}}
    async with site(tmp_path, callers) as here, Gateway(here.settings()) as gateway:
        async with here.caller(gateway, "few") as caller:
            for request_id in ("", A):
                answer = await caller.answer(request_id=request_id, start_page=2147483647)
                assert answer.reason == "INVALID_REQUEST"
        assert here.sent() == 0


async def test_an_id_that_is_sent_again_ends_the_deduplication_of_what_was_there(tmp_path: Path) -> None:
    """The first document's pages are overwritten by a create that was lost before, and is sent again after."""
    callers = {"saving": {"dedupe_seconds": 3600}}
    async with site(tmp_path, callers) as here, Gateway(here.settings()) as gateway:
        here.put(CHANGED, "in/b.pdf")
        async with here.caller(gateway, "saving") as caller:
            here.emulator.add_fault(operation="create", **DROPPED)
            assert (await caller.answer(request_id=A)).reason in NOT_TOLD
            other = await caller.create("in/b.pdf")
            assert (await caller.create("in/b.pdf")).job_id == other.job_id
            await asyncio.sleep(FENCE)
            again = await caller.create(request_id=A)
            assert again.job_id != other.job_id
            assert (await caller.create("in/b.pdf")).job_id not in {again.job_id, other.job_id}
        assert here.made.total() == 3
