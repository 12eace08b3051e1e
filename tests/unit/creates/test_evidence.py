"""Whose job is it? The rules of evidence, against an oracle that tries them one after the other."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions
from docpreview_gateway.creates.evidence import Evidence, Found, Listed, Maybe, Nothing, Reused, weigh
from docpreview_gateway.creates.keys import CreateKeys
from docpreview_gateway.creates.records import Record, stored_request
from docpreview_gateway.upstream.wire.user_data import TOKEN_PLACEHOLDER
from tests.fakes.recorded import KEYS
from tests.unit.creates.worlds import BUCKET, request

if TYPE_CHECKING:
    from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest

OTHER_KEYS = CreateKeys("elsewhere", [bytes(range(32))])
START, END, SLACK = 1000.0, 1105.0, 60.0
MINE, FOREIGN = "a" * 24, "b" * 24


def record_of(asked: CreatePreviewJobRequest, key: str = MINE) -> Record:
    return Record(
        key=key,
        body=KEYS.body(asked),
        kid=KEYS.id,
        caller="one",
        bucket=asked.bucket,
        request=stored_request(asked),
        place="place",
        render="",
        keep=100.0,
        nonce=b"12345678",
        sign_start=START,
        sign_end=END,
        first_start=START,
    )


def marker(record: Record, keys: CreateKeys = KEYS, **changes: Any) -> str:
    its = replace(record, **changes)
    return str(keys.marker(its.key, its.body, its.caller, its.nonce))


def job_of(asked: CreatePreviewJobRequest, job_id: str = "d1", created: float = 1010.0, **changes: Any) -> PreviewJob:
    job = PreviewJob(
        bucket=asked.bucket,
        job_id=job_id,
        input=ObjectLocation(bucket=asked.bucket, object=asked.input_object),
        output=ObjectLocation(bucket=asked.output.bucket or asked.bucket, object=asked.output.object),
        options=asked.options,
    )
    job.create_time.seconds = int(created)
    job.options.ClearField("password")
    job.MergeFrom(PreviewJob(**changes))
    return job


def weighed(record: Record, *listed: Listed, echo: bool = False) -> Evidence:
    return weigh(record, listed, KEYS, slack=SLACK, echo=echo)


@pytest.mark.parametrize("echo", [True, False])
def test_a_job_with_the_creates_marker_is_its_job_whatever_else_it_shows(echo: bool) -> None:  # noqa: FBT001
    """E1: of another attempt, made outside of the window, and with other options than an unmarked job has."""
    asked = request()
    record = record_of(asked)
    unmarked = Listed(job_of(asked, "d0", 1001), "")
    mine = Listed(job_of(request(input_object="x.pdf"), "d1", 5000), marker(record, nonce=b"abcdefgh"))
    found = weighed(record, unmarked, mine, echo=echo)
    assert isinstance(found, Found)
    assert found.job.job_id == "d1"


def test_of_several_jobs_with_the_marker_the_earliest_is_the_creates_and_the_others_are_duplicates() -> None:
    record, asked = record_of(request()), request()
    listed = [
        Listed(job_of(asked, name, at), marker(record)) for name, at in [("d3", 1030), ("d1", 1010), ("d2", 1020)]
    ]
    found = weighed(record, *listed)
    assert isinstance(found, Found)
    assert (found.job.job_id, [job.job_id for job in found.duplicates]) == ("d1", ["d2", "d3"])


@pytest.mark.parametrize("forged", ["check", "keys", "key"])
def test_a_marker_that_is_not_the_creates_makes_no_job_its_own(forged: str) -> None:
    """A forged check, another deployment's marker and another create's. Nor is the job one without a marker."""
    asked = request()
    record = record_of(asked)
    texts = {
        "check": marker(record)[:-6] + "aaaaaa",
        "keys": marker(record, OTHER_KEYS),
        "key": marker(record, key=FOREIGN),
    }
    assert weighed(record, Listed(job_of(asked), texts[forged])) == Nothing()


def test_a_job_of_the_id_with_another_body_says_that_the_id_was_reused() -> None:
    """Only if there is none with its own body."""
    asked, other = request(), request(input_object="b.pdf")
    record = record_of(asked)
    theirs = Listed(job_of(other, "d1"), marker(record, body=KEYS.body(other)))
    assert isinstance(weighed(record, theirs), Reused)
    found = weighed(record, theirs, Listed(job_of(asked, "d2"), marker(record)))
    assert isinstance(found, Found)
    assert found.job.job_id == "d2"


def test_the_token_in_the_output_path_identifies_a_job_without_marker_in_the_window() -> None:
    """E2. Earlier and later jobs of the path are of another life of the id."""
    asked = request(output=ObjectLocation(object=f"out/{TOKEN_PLACEHOLDER}/p.jpg"))
    record = record_of(asked)
    path = asked.output.object.replace(TOKEN_PLACEHOLDER, KEYS.path_token(record.key))
    sent = request(output=ObjectLocation(object=path))
    found = weighed(record, Listed(job_of(sent, "d1"), ""))
    assert isinstance(found, Found)
    for outside in (START - SLACK - 2, END + SLACK + 2):
        assert not isinstance(weighed(record, Listed(job_of(sent, "d1", outside), "")), Found)


def test_an_unmarked_job_is_nobodys_while_the_cloud_echoes() -> None:
    asked = request()
    assert weighed(record_of(asked), Listed(job_of(asked), ""), echo=True) == Nothing()


@pytest.mark.parametrize(
    "other",
    [
        {"input": ObjectLocation(object="b.pdf")},
        {"output": ObjectLocation(object="other.jpg")},
        {"output": ObjectLocation(bucket="previews-1250000000")},
        {"options": PreviewOptions(quality=50)},
    ],
    ids=["document", "template", "bucket", "options"],
)
def test_an_unmarked_job_that_differs_is_not_the_creates(other: dict[str, Any]) -> None:
    asked = request(options=PreviewOptions(quality=80))
    assert weighed(record_of(asked), Listed(job_of(asked, **other), "")) == Nothing()


@pytest.mark.parametrize("created", [START - SLACK - 2, END + SLACK + 2])
def test_an_unmarked_job_outside_of_the_window_is_not_the_creates(created: float) -> None:
    asked = request()
    assert weighed(record_of(asked), Listed(job_of(asked, "d1", created), "")) == Nothing()


@pytest.mark.parametrize(
    ("echoed", "sure"),
    [
        (PreviewOptions(), True),
        (PreviewOptions(start_page=1, end_page=-1, quality=100, zoom_percent=100, image_dpi=96), True),
        (PreviewOptions(comments=PreviewOptions.COMMENTS_HIDE), True),
        (PreviewOptions(comments=PreviewOptions.COMMENTS_SHOW, end_page=5001), True),
        (PreviewOptions(quality=70), False),
        (PreviewOptions(single_image=False), True),
        (PreviewOptions(single_image=True), False),
        (PreviewOptions(target_format=PreviewOptions.TARGET_FORMAT_PNG), False),
        (PreviewOptions(page_ranges="1-2"), False),
    ],
)
def test_an_unmarked_job_is_surely_equal_only_if_it_has_the_defaults_of_what_was_left_open(
    echoed: PreviewOptions,
    sure: bool,  # noqa: FBT001
) -> None:
    """All that the create sets is equal: it may be its job. But another program may have asked for more."""
    asked = request()
    found = weighed(record_of(asked), Listed(job_of(asked, options=echoed), ""))
    assert isinstance(found, Maybe)
    assert bool(found.surely) is sure


def test_a_password_makes_no_difference_because_the_cloud_does_not_show_it() -> None:
    asked = request(options=PreviewOptions(password="secret", quality=80))
    assert isinstance(weighed(record_of(asked), Listed(job_of(asked), "")), Maybe)


def test_any_unmarked_job_may_be_that_of_a_request_that_was_too_large_to_be_kept() -> None:
    """None can be told to be surely its job, and none not to be."""
    record = replace(record_of(request()), request=b"")
    found = weighed(record, Listed(job_of(request(input_object="x.pdf")), ""))
    assert isinstance(found, Maybe)
    assert found.surely == ()


class Sketch(NamedTuple):
    """A job, as an oracle needs to know it."""

    created: int
    mark: str
    token: bool
    document: str
    quality: int


SKETCHES = st.builds(
    Sketch,
    created=st.sampled_from([900, 939, 1000, 1020, 1165, 1167]),
    mark=st.sampled_from(["", "", "mine", "other body", "other key", "forged"]),
    token=st.booleans(),
    document=st.sampled_from(["a.pdf", "b.pdf"]),
    quality=st.sampled_from([0, 80, 100]),
)


def listed_of(sketch: Sketch, number: int, record: Record) -> Listed:
    marks = {
        "": "",
        "mine": marker(record),
        "other body": marker(record, body=b"x" * 16),
        "other key": marker(record, key=FOREIGN),
        "forged": marker(record)[:-6] + "aaaaaa",
    }
    token = KEYS.path_token(record.key if sketch.token else FOREIGN)
    output = ObjectLocation(object=f"out/{token}/p.jpg")
    options = PreviewOptions(quality=sketch.quality) if sketch.quality else PreviewOptions()
    sent = request(input_object=sketch.document, output=output, options=options)
    return Listed(job_of(sent, f"d{number}", sketch.created), marks[sketch.mark])


def oracle(sketches: list[Sketch], *, echo: bool, has_token: bool) -> tuple[str, list[int]]:
    """The table of the protocol, row by row: the verdict, and the jobs that it names."""
    numbered = list(enumerate(sketches))
    inside = {n for n, job in numbered if START - SLACK - 1 <= job.created <= END + SLACK + 1}

    def order(found: list[int]) -> list[int]:
        return sorted(found, key=lambda n: (sketches[n].created, f"d{n}"))

    if e1 := [n for n, job in numbered if job.mark == "mine"]:
        return "found", order(e1)
    if e2 := [n for n, job in numbered if has_token and job.token and not job.mark and n in inside]:
        return "found", order(e2)
    if any(job.mark == "other body" for job in sketches):
        return "reused", []
    equal = [
        n
        for n, job in numbered
        if not job.mark and n in inside and job.document == "a.pdf" and job.quality == 80 and job.token == has_token
    ]
    if equal and not echo and not has_token:
        return "maybe", equal
    return "nothing", []


@settings(max_examples=400)
@given(sketches=st.lists(SKETCHES, max_size=4), echo=st.booleans(), has_token=st.booleans())
def test_evidence_is_what_the_table_says(sketches: list[Sketch], echo: bool, has_token: bool) -> None:  # noqa: FBT001
    """Small worlds of jobs of every kind: the first row that holds over the whole list decides."""
    path = f"out/{TOKEN_PLACEHOLDER if has_token else KEYS.path_token(FOREIGN)}/p.jpg"
    asked = request(output=ObjectLocation(object=path), options=PreviewOptions(quality=80))
    record = record_of(asked)
    listed = [listed_of(sketch, number, record) for number, sketch in enumerate(sketches)]
    if not has_token and any(sketch.token for sketch in sketches):
        # Nobody else can make our token.
        listed = [listed_of(sketch._replace(token=False), number, record) for number, sketch in enumerate(sketches)]
        sketches = [sketch._replace(token=False) for sketch in sketches]
    verdict, numbers = oracle(sketches, echo=echo, has_token=has_token)
    found = weigh(record, listed, KEYS, slack=SLACK, echo=echo)
    ids = [f"d{number}" for number in numbers]
    match found:
        case Found():
            assert (verdict, ids) == ("found", [job.job_id for job in (found.job, *found.duplicates)])
        case Maybe():
            assert (verdict, ids) == ("maybe", [job.job_id for job in found.jobs])
        case _:
            assert verdict == type(found).__name__.lower()


def test_an_imported_record_is_found_by_the_marker_of_its_version() -> None:
    """Its key and its marker are those of versions before 2.0."""
    asked = request()
    old = replace(record_of(asked), key="1:old", render="dg1-" + "a" * 26)
    found = weighed(old, Listed(job_of(asked, "d1"), "dg1-" + "b" * 26), Listed(job_of(asked, "d2"), old.render))
    assert isinstance(found, Found)
    assert found.job.job_id == "d2"
    assert BUCKET.name == old.bucket
