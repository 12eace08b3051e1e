"""Requests of the contract as requests of the cloud, beyond what the comparison with the vendor's SDK shows."""

from docpreview.v1.preview_job_pb2 import PreviewJob, PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.upstream.wire import requests

from .xml_values import leaves

BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
WITH_QUEUE = Bucket("examplebucket-1250000000", "ap-chongqing", "main", default_queue_id="pdefault")


def _leaves(request: CreatePreviewJobRequest, bucket: Bucket = BUCKET) -> dict[str, str]:
    return leaves(requests.create(request, bucket, bucket).body)


def test_create_without_options() -> None:
    """An empty DocProcess is sent all the same, and nothing that the caller did not say."""
    assert _leaves(CreatePreviewJobRequest(input_object="a.pptx")) == {
        "Tag": "DocProcess",
        "Input/Object": "a.pptx",
        "Operation/Output/Region": BUCKET.region,
        "Operation/Output/Bucket": BUCKET.name,
        "Operation/Output/Object": "",
        "Operation/DocProcess": "",
    }


def test_create_with_user_data() -> None:
    """The caller's text stands beside the operation's other parts, unchanged."""
    found = _leaves(CreatePreviewJobRequest(input_object="a.pptx", user_data=" <&> "))
    assert found["Operation/UserData"] == " <&> "


def test_queue_of_a_create() -> None:
    """The caller's queue, else the bucket's configured one, else none."""
    unnamed, named = CreatePreviewJobRequest(), CreatePreviewJobRequest(queue_id="pmine")
    assert "QueueId" not in _leaves(unnamed)
    assert _leaves(unnamed, WITH_QUEUE)["QueueId"] == "pdefault"
    assert _leaves(named, WITH_QUEUE)["QueueId"] == "pmine"


def test_create_is_not_repeatable() -> None:
    """Creates are marked for the transport, reads are not."""
    assert requests.create(CreatePreviewJobRequest(), BUCKET, BUCKET).unrepeatable
    assert not requests.get(BUCKET, "j1").unrepeatable


def test_password_in_a_log() -> None:
    """The text form of a request does not show its body."""
    create = CreatePreviewJobRequest(options=PreviewOptions(password="s3cret"))
    assert "s3cret" not in repr(requests.create(create, BUCKET, BUCKET))


def test_states_asked_twice() -> None:
    """Each state goes out once, in the order asked."""
    request = ListPreviewJobsRequest(
        states=[PreviewJob.STATE_SUCCESS, PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_SUCCESS]
    )
    assert dict(requests.list_jobs(request, BUCKET, size=1, cursor="").query)["states"] == "Success,Submitted"


def test_object_on_its_own_host() -> None:
    """Results are read from the bucket's object host."""
    request = requests.read_object(BUCKET, "a b/${x}.jpg")
    assert request.host == "examplebucket-1250000000.cos.ap-chongqing.myqcloud.com"
    assert request.target == "/a%20b/%24%7Bx%7D.jpg"
