"""The validation rules of requests, compared with the contract's comments."""

import re
from collections.abc import Iterator
from typing import Any

import pytest
from google.protobuf.json_format import ParseDict
from google.protobuf.message import Message

from docpreview.v1 import preview_job_service_pb2 as jobs
from docpreview.v1 import preview_queue_service_pb2 as queues
from docpreview.v1 import upload_service_pb2 as uploads
from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview_gateway.model import validation
from docpreview_gateway.model.errors import InvalidRequest

from . import proto_comments

FIELDS_WITHOUT_RULE = {
    "CreatePreviewJobRequest.options.single_image": "both values of a bool are good",
    "CreatePreviewJobRequest.options.watermark.tiled": "both values of a bool are good",
    "ListPreviewJobsRequest.include_pages": "both values of a bool are good",
    "CreateUploadRequest.content_crc64": "all values of 64 bits are good",
}

BUCKET = "documents-1250000000"
GOOD: dict[type[Message], dict[str, Any]] = {
    jobs.CreatePreviewJobRequest: {
        "bucket": BUCKET,
        "input_object": "a.pptx",
        "output": {"object": "r/${SheetID}/${Number}"},
    },
    jobs.GetPreviewJobRequest: {"bucket": BUCKET, "job_id": "d1"},
    jobs.BatchGetPreviewJobsRequest: {"bucket": BUCKET, "job_ids": ["d1"]},
    jobs.ListPreviewJobsRequest: {"bucket": BUCKET},
    jobs.WaitPreviewJobRequest: {"bucket": BUCKET, "job_id": "d1"},
    jobs.WatchPreviewJobRequest: {"bucket": BUCKET, "job_id": "d1"},
    jobs.WatchPreviewJobsRequest: {"bucket": BUCKET, "job_ids": ["d1"]},
    queues.ListPreviewQueuesRequest: {"bucket": BUCKET},
    uploads.CreateUploadRequest: {"bucket": BUCKET, "object": "in/a.pdf", "content_length": 1},
    uploads.CompleteUploadRequest: {"upload_token": "t", "etags": ["e"]},
    uploads.AbortUploadRequest: {"upload_token": "t"},
}
"""The least that each request needs."""

CREATE = jobs.CreatePreviewJobRequest
LIST = jobs.ListPreviewJobsRequest
QUEUES = queues.ListPreviewQueuesRequest
BATCH = jobs.BatchGetPreviewJobsRequest
WATCH_MANY = jobs.WatchPreviewJobsRequest

INTEGERS = [
    (CREATE, "options.start_page", 1, 5000),
    (CREATE, "options.end_page", -1, 5000),
    (CREATE, "options.sheet_id", 0, 10_000),
    (CREATE, "options.quality", 1, 100),
    (CREATE, "options.zoom_percent", 10, 200),
    (CREATE, "options.image_dpi", 96, 600),
    *((CREATE, f"options.watermark.{name}", 0, 65_500) for name in ("dx", "dy")),
]
LENGTHS = [
    (CREATE, "options.password", 255),
    (CREATE, "options.image_params", 2048),
    (CREATE, "user_data", 960),
    (CREATE, "input_object", 850),
    (CREATE, "options.watermark.image.object", 850),
    (CREATE, "queue_id", 64),
    (CREATE, "options.source_format", 10),
    (LIST, "queue_id", 64),
    (LIST, "page_token", 1024),
    (QUEUES, "page_token", 1024),
    (uploads.CreateUploadRequest, "object", 850),
    (uploads.AbortUploadRequest, "upload_token", 4096),
    *((kind, "job_id", 64) for kind in GOOD if "job_id" in GOOD[kind]),
]
DURATIONS = [
    (jobs.WaitPreviewJobRequest, "timeout", 0, 300),
    *((kind, "page_url_ttl", 1, 3600) for kind in GOOD if "page_url_ttl" in kind.DESCRIPTOR.fields_by_name),
    (uploads.CreateUploadRequest, "ttl", 1, 3600),
]
COUNTS = [
    (BATCH, "job_ids", 1, 100),
    (WATCH_MANY, "job_ids", 1, 1000),
    (QUEUES, "queue_ids", 0, 10),
    (LIST, "states", 0, 20),
]
ENUMS = [
    (CREATE, "options.target_format"),
    (CREATE, "options.paper_orientation"),
    (CREATE, "options.paper_size"),
    (CREATE, "options.comments"),
    (LIST, "order"),
    (QUEUES, "state"),
]


def violations(kind: type[Message], fields: dict[str, Any]) -> dict[str, str]:
    """Violations of the minimal request with these fields, by path."""
    request = ParseDict(GOOD[kind], kind())
    for path, value in fields.items():
        *parents, leaf = path.split(".")
        owner: Any = request
        for name in parents:
            owner = getattr(owner, name)
        owner.MergeFrom(ParseDict({leaf: value}, type(owner)()))
    return _violations(request)


def _violations(request: Message) -> dict[str, str]:
    try:
        validation.check(request)
    except InvalidRequest as error:
        return {violation.field: violation.description for violation in error.violations}
    return {}


def leaf_paths(descriptor: Any, prefix: str = "") -> Iterator[str]:
    """Paths of all fields that are not messages of the contract."""
    for field in descriptor.fields:
        inner = field.message_type
        if inner is not None and inner.full_name.startswith("docpreview."):
            yield from leaf_paths(inner, f"{prefix}{field.name}.")
        else:
            yield prefix + field.name


def test_every_request_has_rules() -> None:
    """The table has the request type of each method."""
    services = [
        service for module in (jobs, queues, uploads) for service in module.DESCRIPTOR.services_by_name.values()
    ]
    asked = {method.input_type.full_name for service in services for method in service.methods}
    assert {kind.DESCRIPTOR.full_name for kind in validation.FIELDS} == asked


@pytest.mark.parametrize("kind", list(validation.FIELDS), ids=lambda kind: kind.DESCRIPTOR.name)
def test_every_field_has_a_rule(kind: type[Message]) -> None:
    """The table has each field of the contract, or the list above has the reason why not."""
    name = kind.DESCRIPTOR.name
    ruled = {field.path for field in validation.FIELDS[kind]}
    unruled = {path.removeprefix(f"{name}.") for path in FIELDS_WITHOUT_RULE if path.startswith(f"{name}.")}
    assert ruled | unruled == set(leaf_paths(kind.DESCRIPTOR))
    assert not ruled & unruled


@pytest.mark.parametrize("kind", list(GOOD), ids=lambda kind: kind.DESCRIPTOR.name)
def test_required_fields_alone_pass_and_each_missing_one_is_named(kind: type[Message]) -> None:
    """Without the required fields each of them is named, and nothing else."""
    assert violations(kind, {}) == {}
    required = {field.path for field in validation.FIELDS[kind] if field.required}
    assert _violations(kind()) == dict.fromkeys(required, "is required")


@pytest.mark.parametrize("kind", list(validation.FIELDS), ids=lambda kind: kind.DESCRIPTOR.name)
def test_required_fields_are_documented_as_required(kind: type[Message]) -> None:
    """The contract's comments say "Required" at exactly these fields."""
    comments = proto_comments.of_fields()
    for field in validation.FIELDS[kind]:
        top = field.path.split(".")[0]
        comment = comments[f"{kind.DESCRIPTOR.name}.{top}"]
        says_so = "Required." in comment or (field.path == "job_ids" and "1 to 100" in comment)
        others_require = any(other.required and other.path.startswith(f"{top}.") for other in validation.FIELDS[kind])
        assert says_so == (field.required or others_require), field.path


@pytest.mark.parametrize(("kind", "path", "low", "high"), INTEGERS)
def test_integers_pass_within_their_range_only(kind: type[Message], path: str, low: int, high: int) -> None:
    """Both ends pass, their neighbours outside do not."""
    for value in (low, high):
        assert path not in violations(kind, {path: value}), value
    for value in (low - 1, high + 1, 2**31 - 1, -(2**31)):
        assert violations(kind, {path: value})[path], value


def test_a_watermark_needs_an_image() -> None:
    """And none of its fields makes up for it."""
    path = "options.watermark.image.object"
    assert violations(CREATE, {"options.watermark.dx": 1}) == {
        path: "is required: the key of an image in a configured bucket"
    }
    assert violations(CREATE, {path: "brand/logo.png"}) == {}


@pytest.mark.parametrize("name", ["horizontal_spacing", "vertical_spacing"])
def test_spacings_of_tiles_are_within_their_range(name: str) -> None:
    """0 to 65500 pixels."""
    path, tiled = (
        f"options.watermark.{name}",
        {"options.watermark.image.object": "a.png", "options.watermark.tiled": True},
    )
    assert [path in violations(CREATE, tiled | {path: value}) for value in (-1, 0, 65_500, 65_501)] == [
        *(True, False, False, True)
    ]


def test_spacings_are_for_tiled_watermarks_only() -> None:
    """Alone they would be ignored."""
    fields = {"options.watermark.image.object": "a.png", "options.watermark.vertical_spacing": 5}
    assert set(violations(CREATE, fields)) == {"options.watermark.vertical_spacing"}
    assert violations(CREATE, fields | {"options.watermark.tiled": True}) == {}


@pytest.mark.parametrize("kind", [LIST, QUEUES])
def test_a_page_size_may_be_above_the_largest_page_but_not_negative(kind: type[Message]) -> None:
    """It then means the largest page (AIP-158)."""
    for size in (0, 100, 101, 2**31 - 1):
        assert violations(kind, {"page_size": size}) == {}
    assert violations(kind, {"page_size": -1}) == {"page_size": "must be at least 0"}


@pytest.mark.parametrize(("kind", "path", "length"), LENGTHS)
def test_strings_pass_up_to_their_longest_length_only(kind: type[Message], path: str, length: int) -> None:
    """One more character is a violation."""
    suffix = ".txt" if path == "input_object" else ""
    assert path not in violations(kind, {path: "x" * (length - len(suffix)) + suffix})
    assert violations(kind, {path: "x" * (length + 1 - len(suffix)) + suffix})[path]


@pytest.mark.parametrize(("kind", "path", "low", "high"), DURATIONS)
def test_durations_pass_within_their_range_only(kind: type[Message], path: str, low: int, high: int) -> None:
    """Both ends pass; a nanosecond outside does not, nor does an invalid duration."""
    for value in (f"{low}s", f"{high}s"):
        assert path not in violations(kind, {path: value}), value
    for value in (f"{high}.000000001s", f"{low - 1}.999999999s" if low else "-0.000000001s", "-1s", "315576000000s"):
        assert violations(kind, {path: value})[path], value


def test_a_duration_with_invalid_nanoseconds_is_a_violation() -> None:
    """Nanoseconds that no protobuf library writes are rejected, not computed with."""
    request = ParseDict(GOOD[jobs.WaitPreviewJobRequest], jobs.WaitPreviewJobRequest())
    request.timeout.seconds, request.timeout.nanos = 301, -(2**31)
    assert "timeout" in _violations(request)


@pytest.mark.parametrize(("kind", "path", "low", "high"), COUNTS)
def test_lists_pass_up_to_their_largest_number_of_items_only(
    kind: type[Message], path: str, low: int, high: int
) -> None:
    """One more item is a violation."""
    item = "STATE_SUCCESS" if path == "states" else "d1"
    more = [item] * (high - len(GOOD[kind].get(path, [])))
    assert violations(kind, {path: more}) == {}
    assert violations(kind, {path: [*more, item]}) == {path: f"must have {low} to {high} items"}


@pytest.mark.parametrize(("kind", "path"), ENUMS)
def test_an_enum_value_passes_only_when_the_contract_names_it(kind: type[Message], path: str) -> None:
    """Every value of the contract passes, an unknown number does not."""
    descriptor: Any = kind.DESCRIPTOR
    *parents, leaf = path.split(".")
    for name in parents:
        descriptor = descriptor.fields_by_name[name].message_type
    for value in descriptor.fields_by_name[leaf].enum_type.values:
        assert path not in violations(kind, {path: value.number})
    for number in (99, -1):
        assert violations(kind, {path: number}) == {path: "is not a value of this contract"}


STATED = [
    *(
        (kind, path, str(end))
        for kind, path, low, high in INTEGERS
        for end in (low, high)
        if path != "options.sheet_id"
    ),
    (CREATE, "options.sheet_id", "0"),
    (CREATE, "options.sheet_id", "10000"),
    *(
        (kind, path, str(length))
        for kind, path, length in LENGTHS
        if path not in {"queue_id", "page_token", "upload_token"}
    ),
    (CREATE, "options.page_ranges", "1000"),
    (BATCH, "job_ids", "100"),
    (WATCH_MANY, "job_ids", "1000"),
    (QUEUES, "queue_ids", "10"),
    (jobs.WaitPreviewJobRequest, "timeout", "5 minutes"),
    *((kind, path, end) for kind, path, *_ in DURATIONS[1:] for end in ("1 second", "1 hour")),
]
STATED_ELSEWHERE = {
    "options.start_page": {"5000"},  # the limit of pages, at CreatePreviewJobRequest.input_object
    "options.end_page": {"5000"},  # as above
}


@pytest.mark.parametrize(("kind", "path", "number"), STATED)
def test_the_contracts_comment_has_the_number_of_the_rule(kind: type[Message], path: str, number: str) -> None:
    """The comment of the field and the rule agree."""
    if number in STATED_ELSEWHERE.get(path, ()):
        kind, path = CREATE, "input_object"
    owner: Any = kind.DESCRIPTOR
    *parents, leaf = path.split(".")
    for name in parents:
        owner = owner.fields_by_name[name].message_type
    comment = proto_comments.of_fields()[f"{owner.name}.{leaf}"]
    assert re.search(rf"(?<![\d.-]){re.escape(number)}(?!\d)", comment), comment


@pytest.mark.parametrize(
    ("path", "bad"),
    [
        *(
            ("bucket", bad)
            for bad in ["x", "a-0123456", "A-12345", "a_b-12345", "evil.com/", "a-12345\n", "a" * 51 + "-12345"]
        ),
        *(("output.bucket", bad) for bad in ["x@evil.com#", "127.0.0.1:80/", "\uff41-12345"]),
        *(("output.region", bad) for bad in ["evil.com/#", "ap。evil", "ap-gz%2e", "ap-ü", "cosgz", "ap-x\n"]),
        *(("queue_id", bad) for bad in ["p-1", "p/1", "p 1", "中", "p1\n"]),
        *(("input_object", bad) for bad in ["/", "a/../b.txt", "./a.txt", " a.txt", "a.txt ", "a\n.txt", "\ufffe.txt"]),
        *(("output.object", bad) for bad in ["page.jpg", "${Number}/page.jpg", "/", "../${Number}", "${Page}\x7f"]),
        *(("options.source_format", bad) for bad in ["PPTX", ".pptx", "p p", "ü"]),
        *(
            ("options.page_ranges", bad)
            for bad in ["0", "2,1", "1,1", "1-3,3", "3-1", "1,", "-", "1-", "1 ,2", "a", "٣"]
        ),
        ("options.page_ranges", "10000"),
        ("options.page_ranges", ",".join(map(str, range(1, 300)))),
        *(("options.password", bad) for bad in ["\0", "a\nb", "\ufffe", "\x1b"]),
        *(("options.image_params", bad) for bad in ["\0", "\t"]),
        *(("user_data", bad) for bad in ["ü", "a\nb", "\x7f"]),
        ("request_id", "6a5b3c52-6e6d-4c0a-9d3e-0f6f3f1f1f1"),
    ],
)
def test_an_invalid_string_of_a_create_is_one_violation(path: str, bad: str) -> None:
    """At that field, with how to correct it."""
    assert list(violations(CREATE, {"options.source_format": "txt", path: bad})) == [path]


@pytest.mark.parametrize(
    ("path", "good"),
    [
        *(("bucket", good) for good in ["a-12345", "a" * 49 + "-1234567890123", "1-a-1250000000"]),
        *(("output.region", good) for good in ["ap-chongqing", "na-siliconvalley", "ap-shanghai-fsi", "eu-x-2"]),
        *(("input_object", good) for good in ["/a.txt", "中文/e\u0301.docx", "a b+c&<>.pdf", "...txt.txt", "a..b.txt"]),
        *(("output.object", good) for good in ["${Page}", "/a/${Number}.png", "x/${SheetID}_${Page}"]),
        *(("options.page_ranges", good) for good in ["1", "1,2-4,7", "9999", "5-5"]),
        *(("options.password", good) for good in [" ", "中\U0001f511<&>"]),
        ("user_data", " ~"),
    ],
)
def test_unusual_but_valid_strings_of_a_create_pass(path: str, good: str) -> None:
    """Only what the contract rules out is a violation."""
    assert violations(CREATE, {path: good}) == {}


@pytest.mark.parametrize(
    "kind", [kind for kind in GOOD if "job_id" in GOOD[kind]], ids=lambda kind: kind.DESCRIPTOR.name
)
@pytest.mark.parametrize("bad", ["a/b", "a,b", "..", "a?x=1", "%2e", "ü", " d1", "d1\n"])
def test_an_invalid_job_id_is_a_violation(kind: type[Message], bad: str) -> None:
    """An id can never change the path that is built from it."""
    assert violations(kind, {"job_id": bad}) == {"job_id": "must be 1 to 64 letters and digits"}


def test_an_invalid_item_of_a_list_is_named_by_its_index() -> None:
    """The violation is that of the list, with the item's index."""
    assert violations(BATCH, {"job_ids": ["a/b"]}) == {"job_ids": "item 1: must be 1 to 64 letters and digits"}
    assert violations(QUEUES, {"queue_ids": ["p1", ""]}) == {"queue_ids": "item 1: must be 1 to 64 letters and digits"}
    assert violations(LIST, {"states": [99]}) == {"states": "item 0: is not a value of this contract"}


ACROSS = [
    ({"options.page_ranges": "1", "options.start_page": 1}, {"options.start_page"}),
    ({"options.page_ranges": "1", "options.end_page": 5}, {"options.end_page"}),
    ({"options.start_page": 3, "options.end_page": 2}, {"options.end_page"}),
    ({"options.start_page": 3, "options.end_page": 3}, set()),
    ({"options.start_page": 3, "options.end_page": -1}, set()),
    ({"options.end_page": 0}, {"options.end_page"}),
    ({"options.target_format": "TARGET_FORMAT_PDF", "options.image_params": "x"}, {"options.image_params"}),
    ({"options.target_format": "TARGET_FORMAT_PDF", "options.single_image": True}, {"options.single_image"}),
    ({"options.target_format": "TARGET_FORMAT_PDF", "options.single_image": False}, set()),
    ({"options.target_format": "TARGET_FORMAT_PNG", "options.image_params": "x"}, set()),
    ({"options.single_image": True}, set()),
    ({"options.single_image": True, "options.start_page": 5}, set()),
    ({"options.single_image": True, "options.end_page": 20}, set()),
    ({"options.single_image": True, "options.end_page": 21}, {"options.single_image"}),
    ({"options.single_image": True, "options.start_page": 2, "options.end_page": 21}, set()),
    ({"options.single_image": True, "options.page_ranges": "1-20"}, set()),
    ({"options.single_image": True, "options.page_ranges": "1-20,30"}, {"options.single_image"}),
    ({"options.single_image": True, "options.page_ranges": "oops"}, {"options.page_ranges"}),
    ({"input_object": "no-suffix"}, {"options.source_format"}),
    ({"input_object": "no-suffix", "options.source_format": "docx"}, set()),
    ({"input_object": "a.xlsx", "output.object": "${Number}.jpg"}, {"output.object"}),
    ({"input_object": "sheet", "options.source_format": "xlsx", "output.object": "${Number}.jpg"}, {"output.object"}),
    ({"input_object": "a.pptx", "options.source_format": "xlsx", "output.object": "${Number}.jpg"}, set()),
]


@pytest.mark.parametrize(("fields", "bad"), ACROSS)
def test_rules_across_fields_of_a_create(fields: dict[str, Any], bad: set[str]) -> None:
    """Each combination violates exactly these fields."""
    assert set(violations(CREATE, fields)) == bad


@pytest.mark.parametrize(
    ("fields", "bad"),
    [
        ({"created_after": "2022-09-14T00:00:01Z", "created_before": "2022-09-14T00:00:00Z"}, {"created_before"}),
        ({"created_after": "2022-09-14T00:00:00Z", "created_before": "2022-09-14T00:00:00Z"}, set()),
        ({"created_after": "1970-01-01T00:00:00Z", "created_before": "9999-12-31T15:59:59Z"}, set()),
        ({"created_after": "1969-12-31T23:59:59Z"}, {"created_after"}),
        ({"created_after": "2022-09-14T00:00:00.5Z"}, {"created_after"}),
        ({"created_before": "2022-09-14T00:00:00.000000001Z"}, {"created_before"}),
        ({"created_before": "9999-12-31T16:00:00Z"}, {"created_before"}),
        ({"states": ["STATE_UNSPECIFIED", "STATE_FAILED"]}, {"states"}),
    ],
)
def test_rules_across_filters_of_a_list(fields: dict[str, Any], bad: set[str]) -> None:
    """Times in order and within the cloud's format; no state that cannot be listed."""
    assert set(violations(LIST, fields)) == bad


def test_a_timestamp_with_invalid_nanoseconds_is_a_violation() -> None:
    """Nanoseconds that no protobuf library writes are rejected."""
    request = ParseDict(GOOD[LIST], jobs.ListPreviewJobsRequest())
    request.created_after.nanos = -1
    assert set(_violations(request)) == {"created_after"}


def test_one_error_has_all_violations() -> None:
    """In the order of the contract; its message lists the fields."""
    options = PreviewOptions(start_page=0, end_page=9999, page_ranges="x", sheet_id=-1, quality=0, zoom_percent=9)
    options.image_dpi, options.source_format, options.password = 95, "X", "\0"
    request = CREATE(bucket="x", input_object="/", options=options, user_data="ü", request_id="1", queue_id="-")
    with pytest.raises(InvalidRequest) as caught:
        validation.check(request)
    fields = [
        "bucket",
        "queue_id",
        "input_object",
        "output.object",
        "options.source_format",
        "options.start_page",
        "options.end_page",
        "options.page_ranges",
        "options.sheet_id",
        "options.password",
        "options.quality",
        "options.zoom_percent",
        "options.image_dpi",
        "user_data",
        "request_id",
    ]
    assert list(dict.fromkeys(violation.field for violation in caught.value.violations)) == fields
    assert caught.value.message == "invalid request: " + ", ".join(fields)


def test_errors_never_repeat_what_the_caller_sent() -> None:
    """Descriptions are made from the rules alone."""
    bad = "\x1b[31ms3cret"
    assert "s3cret" not in str(violations(CREATE, {"options.password": bad, "input_object": bad, "user_data": bad}))
