"""Parsing of replies that no recorded sample shows: irregular values, and replies about another job."""

import pytest

from docpreview.v1 import error_reason_pb2 as reasons
from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions, Watermark
from docpreview_gateway.model.errors import UpstreamError
from docpreview_gateway.upstream.operations import JobPage, QueuePage
from docpreview_gateway.upstream.wire import responses
from docpreview_gateway.upstream.wire.user_data import Marker

from .wire_values import IMAGE

BUCKET = "test-1250000000"


def _reply(*details: str, rest: str = "") -> bytes:
    return f"<Response>{''.join(f'<JobsDetail>{one}</JobsDetail>' for one in details)}{rest}</Response>".encode()


def _job(inner: str) -> PreviewJob:
    return responses.one_job(_reply(f"<JobId>d1</JobId>{inner}"), BUCKET, "d1")[0]


def _options(inner: str) -> PreviewOptions:
    return _job(f"<Operation><DocProcess>{inner}</DocProcess></Operation>").options


@pytest.mark.parametrize(
    "body",
    [
        _reply("<JobId>d2</JobId>"),
        _reply("<JobId>d1</JobId>", "<JobId>d2</JobId>"),
        _reply("<JobId>d1</JobId>", "<JobId>d1</JobId>"),
        _reply("<JobId>d1</JobId><JobId>d2</JobId>"),
    ],
)
def test_a_reply_about_another_job_is_a_bad_response(body: bytes) -> None:
    """Only the requested job is returned."""
    with pytest.raises(UpstreamError) as caught:
        responses.one_job(body, BUCKET, "d1")
    assert caught.value.reason == reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE


@pytest.mark.parametrize(
    "body",
    [
        _reply(""),
        _reply("<JobId> </JobId>"),
        _reply("<Code/><JobId/>", rest="<NonExistJobIds>d1</NonExistJobIds>"),
        _reply(rest="<NonExistJobIds>d1</NonExistJobIds><Unknown/>"),
    ],
)
def test_a_reply_without_a_job_depends_on_the_operation(body: bytes) -> None:
    """JOB_NOT_FOUND for a get, a bad response for a create, an empty last page for a list."""
    with pytest.raises(UpstreamError) as caught:
        responses.one_job(body, BUCKET, "d1")
    assert caught.value.reason == reasons.ERROR_REASON_JOB_NOT_FOUND
    with pytest.raises(UpstreamError) as caught:
        responses.created_job(body, BUCKET)
    assert caught.value.reason == reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE
    page = responses.job_page(body, BUCKET, with_pages=True, requested_cursor="")
    assert page == JobPage((), "")


@pytest.mark.parametrize("rest", ["", "<Unknown/>", "<RequestId>r1</RequestId>", "<NextToken/>"])
def test_a_reply_that_says_nothing_about_jobs_is_no_absence_of_one(rest: str) -> None:
    """JOB_NOT_FOUND needs an empty `JobsDetail`, or the id among `NonExistJobIds`."""
    with pytest.raises(UpstreamError, match="reply says nothing about a job") as caught:
        responses.one_job(_reply(rest=rest), BUCKET, "d1")
    assert caught.value.reason == reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE


def test_the_failure_of_a_job_quotes_no_signature() -> None:
    """The cloud may tell the address that it could not read."""
    inner = "<State>Failed</State><Message>cannot read https://x/a?q-sign-algorithm=sha1&amp;q-ak=AKID1</Message>"
    assert _job(inner).failure.message == "cannot read https://x/a?..."


def test_an_element_with_a_blank_id_is_not_a_job() -> None:
    """Every returned job has an id."""
    body = _reply("<JobId>d1</JobId><JobId> </JobId>")
    assert responses.created_job(body, BUCKET)[0].job_id == "d1"


def test_a_page_without_jobs_is_not_the_last_one_when_it_has_a_token() -> None:
    """A list is complete only without a token: an empty page proves nothing."""
    assert responses.job_page(
        _reply(rest="<NextToken>8</NextToken>"), BUCKET, with_pages=False, requested_cursor="7"
    ) == (JobPage((), "8"))


@pytest.mark.parametrize("token", ["<NextToken/>", "<NextToken> </NextToken>", ""])
@pytest.mark.parametrize("requested", ["", "7"])
def test_only_a_missing_or_empty_token_ends_the_list(token: str, requested: str) -> None:
    """Whatever was asked for."""
    page = responses.job_page(
        _reply("<JobId>d1</JobId>", rest=token), BUCKET, with_pages=False, requested_cursor=requested
    )
    assert (page.cursor, page.repeated) == ("", False)


@pytest.mark.parametrize("job", [(), ("<JobId>d1</JobId>",)])
def test_a_page_with_the_token_of_its_request_is_not_the_last(job: tuple[str, ...]) -> None:
    """The page keeps the token and says that it is a repeated one: the list does not go on."""
    body = _reply(*job, rest="<NextToken> 7 </NextToken>")
    page = responses.job_page(body, BUCKET, with_pages=False, requested_cursor="7")
    assert (page.cursor, page.repeated) == ("7", True)


def test_a_page_without_jobs_and_with_a_token_does_not_end_the_list() -> None:
    """A list is complete only when its token is empty."""
    body = b"<Response><NextToken>8</NextToken></Response>"
    page = responses.job_page(body, BUCKET, with_pages=False, requested_cursor="7")
    assert page == JobPage((), "8")


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("Submitted", PreviewJob.STATE_SUBMITTED),
        ("Running", PreviewJob.STATE_RUNNING),
        ("Success", PreviewJob.STATE_SUCCESS),
        ("Failed", PreviewJob.STATE_FAILED),
        ("Pause", PreviewJob.STATE_PAUSED),
        ("Cancel", PreviewJob.STATE_CANCELLED),
        ("Deleted", PreviewJob.STATE_UNSPECIFIED),
        ("success", PreviewJob.STATE_SUCCESS),
        ("FAILED", PreviewJob.STATE_FAILED),
        ("", PreviewJob.STATE_UNSPECIFIED),
    ],
)
def test_the_state_decides_and_an_unknown_one_stays_readable(word: str, state: PreviewJob.State.ValueType) -> None:
    """`Code` is always "Success" and is ignored."""
    job = _job(f"<Code>Success</Code><State>{word}</State>")
    assert (job.state, job.raw_state) == (state, word)
    assert job.HasField("failure") == (state == PreviewJob.STATE_FAILED)


def test_a_result_before_success_is_ignored() -> None:
    """Only jobs in the state SUCCESS have a result."""
    made = "<Operation><DocProcessResult><TotalPageCount>7</TotalPageCount></DocProcessResult></Operation>"
    assert not _job(f"<State>Running</State>{made}").HasField("result")
    assert _job(f"<State>Success</State>{made}").result.total_page_count == 7
    assert not _job("<State>Success</State><Operation/>").HasField("result")


@pytest.mark.parametrize(
    ("word", "seconds"),
    [
        ("2022-09-14T17:15:43+0800", 1663146943),
        ("2022-09-14T17:15:43+08:00", 1663146943),
        ("2022-09-14T09:15:43Z", 1663146943),
        ("2022-09-14T04:45:43-0430", 1663146943),
        ("2022-09-14T17:15:43", 1663146943),
        (" 2022-09-14T17:15:43+0800\n", 1663146943),
        ("9999-12-31T23:59:59+0000", 253402300799),
    ],
)
def test_a_time_is_read_with_any_offset_or_in_the_clouds_own_zone(word: str, seconds: int) -> None:
    """The cloud's zone is +08:00."""
    assert _job(f"<CreationTime>{word}</CreationTime>").create_time.seconds == seconds


@pytest.mark.parametrize(
    "word", ["-", "", " ", "soon", "2022-13-01T00:00:00+0800", "9999-12-31T23:59:59-0800", "0001-01-01T00:00:00+0800"]
)
def test_a_text_that_is_not_a_time_is_unset(word: str) -> None:
    """A dash, an empty text, and times that a timestamp cannot hold."""
    job = _job(f"<CreationTime>{word}</CreationTime><EndTime>{word}</EndTime>")
    assert not job.HasField("create_time")
    assert not job.HasField("end_time")


def test_the_times_that_are_remembered_are_bounded_in_number_and_size() -> None:
    """A reply with a huge time is read as any other, and not kept."""
    recent = responses._recent_moment
    for second in range(5_000):
        word = f"2022-09-14T{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}Z"
        assert _job(f"<EndTime>{word}</EndTime>").end_time.seconds == 1663113600 + second
    assert 0 < recent.cache_info().currsize <= 4_096
    recent.cache_clear()
    long = "2022-09-14T17:15:43." + "0" * 100_000 + "+0800"
    assert _job(f"<CreationTime>{long}</CreationTime>").create_time.seconds == 1663146943
    assert recent.cache_info().currsize == 0


@pytest.mark.parametrize(
    ("word", "number"),
    [
        ("7", 7),
        ("-7", -7),
        ("2147483647", 2**31 - 1),
        ("2147483648", 0),
        ("-2147483648", 0),
        ("99999999999", 0),
        ("7.0", 0),
        ("7e1", 0),
        ("--7", 0),
        ("-", 0),
        ("٣", 0),
        ("0x7", 0),
        ("", 0),
    ],
)
def test_a_number_that_the_contract_cannot_hold_is_0(word: str, number: int) -> None:
    """The contract has int32."""
    assert _job(f"<Operation><JobLevel>{word}</JobLevel></Operation>").job_level == number


def test_empty_and_zero_options_are_unset() -> None:
    """Sheet 0 means all sheets, so it is set."""
    zeros = "".join(
        f"<{name}>0</{name}>" for name in ("StartPage", "EndPage", "Quality", "Zoom", "ImageDpi", "SheetId")
    )
    assert _options(zeros) == PreviewOptions(sheet_id=0)
    assert _options("<StartPage/><SheetId/><PicPagination/><PaperDirection/><TgtType/>") == PreviewOptions()


@pytest.mark.parametrize(
    ("word", "orientation"),
    [
        ("0", PreviewOptions.PAPER_ORIENTATION_PORTRAIT),
        ("1", PreviewOptions.PAPER_ORIENTATION_LANDSCAPE),
        ("-7", PreviewOptions.PAPER_ORIENTATION_LANDSCAPE),
        ("sideways", PreviewOptions.PAPER_ORIENTATION_UNSPECIFIED),
    ],
)
def test_paper_direction_0_is_vertical_and_any_other_horizontal(
    word: str, orientation: PreviewOptions.PaperOrientation.ValueType
) -> None:
    """0 is vertical, every other number horizontal."""
    assert _options(f"<PaperDirection>{word}</PaperDirection>").paper_orientation == orientation


def test_values_that_the_contract_does_not_know_are_unspecified() -> None:
    """The cloud may be newer than the contract."""
    unknown = "<TgtType>webp</TgtType><PaperSize>9</PaperSize><Comments>9</Comments><PicPagination>2</PicPagination>"
    assert _options(unknown) == PreviewOptions(single_image=False)


def test_a_password_in_the_returned_options_is_not_read() -> None:
    """The options have no password."""
    assert _options("<DocPassword>s3cret</DocPassword>") == PreviewOptions()


@pytest.mark.parametrize(("uri", "key"), [("/a/b.jpg", "a/b.jpg"), ("a/b.jpg", "a/b.jpg"), ("//a.jpg", "/a.jpg")])
def test_one_leading_slash_is_removed_from_the_key_of_a_page(uri: str, key: str) -> None:
    """The slash is part of the template, not of the key."""
    made = f"<DocProcessResult><PageInfo><TgtUri>{uri}</TgtUri></PageInfo></DocProcessResult>"
    [page] = _job(f"<State>Success</State><Operation>{made}</Operation>").result.pages
    assert page.object == key


def test_a_missing_total_is_the_number_of_queues() -> None:
    """A page without queues is valid."""
    one = b"<Response><QueueList><QueueId>p1</QueueId></QueueList></Response>"
    assert responses.queue_page(one, BUCKET).total == 1
    assert responses.queue_page(b"<Response><QueueList/></Response>", BUCKET) == QueuePage((), 0, ())
    assert responses.queue_page(b"<Response/>", BUCKET) == QueuePage((), 0, ())
    assert responses.queue_page(b"<Response><NonExistPIDs><QueueID/></NonExistPIDs></Response>", BUCKET).missing == ()


@pytest.mark.parametrize("body", [b"<Error><Code>x</Code></Error>", b"<response/>", b"<a><Response/></a>"])
def test_a_reply_with_another_root_is_a_bad_response(body: bytes) -> None:
    """The status is 200."""
    with pytest.raises(UpstreamError) as caught:
        responses.queue_page(body, BUCKET)
    assert caught.value.reason == reasons.ERROR_REASON_UPSTREAM_BAD_RESPONSE


@pytest.mark.parametrize(
    "missing",
    [
        "<NonExistPIDs><QueueID>pone</QueueID><QueueID>ptwo</QueueID></NonExistPIDs>",
        "<NonExistPIDs><QueueId>pone</QueueId></NonExistPIDs><NonExistPIDs><QueueId>ptwo</QueueId></NonExistPIDs>",
        "<NonExistPIDs>pone,ptwo</NonExistPIDs>",
        "<NonExistPIDs> pone, ptwo ,</NonExistPIDs>",
        "<NonExistPIDs>pone</NonExistPIDs><NonExistPIDs>ptwo</NonExistPIDs>",
    ],
)
def test_missing_queues_are_read_as_elements_and_as_a_text(missing: str) -> None:
    """Both forms occur."""
    assert responses.queue_page(f"<Response>{missing}</Response>".encode(), BUCKET).missing == ("pone", "ptwo")


@pytest.mark.parametrize("word", ["JPG", "Jpg", "jpg"])
def test_a_target_format_in_capitals_is_the_same_format(word: str) -> None:
    """In the options and in the result."""
    inner = f"<State>Success</State><Operation><DocProcess><TgtType>{word}</TgtType></DocProcess>"
    job = _job(f"{inner}<DocProcessResult><TgtType>{word}</TgtType></DocProcessResult></Operation>")
    assert job.options.target_format == job.result.target_format == PreviewOptions.TARGET_FORMAT_JPG


MARKER = str(Marker("k" * 24, "b" * 12, "c" * 5, "n" * 6, "h" * 6))


def test_unknown_elements_beside_a_job_do_not_matter() -> None:
    """Only where no job is they may be what was meant."""
    body = b"<Response><JobsDetail><JobId>d1</JobId></JobsDetail><Extra><Id>1</Id></Extra></Response>"
    assert responses.one_job(body, BUCKET, "d1")[0].job_id == "d1"
    with pytest.raises(UpstreamError):
        responses.one_job(b"<Response><Extra><Id>1</Id></Extra></Response>", BUCKET, "d1")


def test_a_page_has_the_markers_of_its_jobs_in_their_order() -> None:
    """Empty for jobs of others."""
    jobs = "".join(
        f"<JobsDetail><JobId>d{number}</JobId><Operation><UserData>{text}</UserData></Operation></JobsDetail>"
        for number, text in enumerate([f"of the caller {MARKER}", "of another"])
    )
    page = responses.job_page(f"<Response>{jobs}</Response>".encode(), BUCKET, with_pages=False, requested_cursor="")
    assert page.markers == (MARKER, "")
    assert [job.user_data for job in page.jobs] == ["of the caller", "of another"]


@pytest.mark.parametrize(
    ("asked", "made", "content_type"),
    [
        ("", "", "image/jpeg"),
        ("png", "", "image/png"),
        ("png", "JPG", "image/jpeg"),
        ("", "pdf", "application/pdf"),
        ("jpg", "webp", ""),
    ],
)
def test_pages_have_the_type_that_the_cloud_made_or_was_asked_for(asked: str, made: str, content_type: str) -> None:
    """JPEG is the cloud's default. A format that is not known has no type."""
    result = f"<DocProcessResult><TgtType>{made}</TgtType><PageInfo><TgtUri>a</TgtUri></PageInfo></DocProcessResult>"
    process = f"<DocProcess><TgtType>{asked}</TgtType></DocProcess>"
    [page] = _job(f"<State>Success</State><Operation>{process}{result}</Operation>").result.pages
    assert page.content_type == content_type


def test_a_watermark_is_read_back() -> None:
    """Its image by bucket and key."""
    address, bucket, key = IMAGE
    numbers = "<Dx>0</Dx><Dy>7</Dy><Batch>1</Batch><HorizontalSpacing>20</HorizontalSpacing>"
    found = _options(f"<DocWatermark><Type>1</Type><Image>{address}</Image>{numbers}</DocWatermark>").watermark
    image = ObjectLocation(bucket=bucket, region="ap-guangzhou", object=key)
    assert found == Watermark(image=image, dx=0, dy=7, tiled=True, horizontal_spacing=20)


@pytest.mark.parametrize(
    "address",
    [
        "https://elsewhere.example/a.png?token=s3cret",
        "https://user:s3cret@elsewhere.example/a.png",
        "https://brand-1250000000.cos.ap-guangzhou.myqcloud.com.elsewhere.example/a.png",
        "https://[s3cret",
        "s3cret",
    ],
)
def test_of_an_image_elsewhere_nothing_is_told(address: str) -> None:
    """Its address may give access to it."""
    found = _options(f"<DocWatermark><Type>1</Type><Image>{address}</Image></DocWatermark>").watermark
    assert found == Watermark()


def test_the_signature_of_an_images_address_is_not_told() -> None:
    """Other programs may have made the job with a signed address."""
    found = _options(f"<DocWatermark><Image>{IMAGE[0]}?q-signature=s3cret#s3cret</Image></DocWatermark>").watermark
    assert (found.image.object, "s3cret" in str(found)) == (IMAGE[2], False)


@pytest.mark.parametrize("inner", ["", "<DocWatermark/>", "<DocWatermark><Image/></DocWatermark>"])
def test_a_job_without_a_watermark_has_none(inner: str) -> None:
    """Also where the cloud returns empty elements."""
    assert not _options(inner).HasField("watermark")
