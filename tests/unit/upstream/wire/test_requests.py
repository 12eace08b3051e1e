"""Requests to the cloud, beyond the comparison with the vendor's SDK."""

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewJob, PreviewOptions, Watermark
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest, ListPreviewJobsRequest
from docpreview_gateway.model.buckets import Bucket
from docpreview_gateway.upstream.wire import requests

from .wire_values import IMAGE
from .xml_values import leaves

BUCKET = Bucket("examplebucket-1250000000", "ap-chongqing", "main")
WITH_QUEUE = Bucket("examplebucket-1250000000", "ap-chongqing", "main", default_queue_id="pdefault")


def _leaves(request: CreatePreviewJobRequest, bucket: Bucket = BUCKET) -> dict[str, str]:
    return leaves(requests.create(request, bucket, bucket).body)


def test_a_create_without_options_has_an_empty_doc_process() -> None:
    """Nothing is sent for unset options."""
    assert _leaves(CreatePreviewJobRequest(input_object="a.pptx")) == {
        "Tag": "DocProcess",
        "Input/Object": "a.pptx",
        "Operation/Output/Region": BUCKET.region,
        "Operation/Output/Bucket": BUCKET.name,
        "Operation/Output/Object": "",
        "Operation/DocProcess": "",
    }


def test_user_data_is_sent_unchanged() -> None:
    """As an element of the operation."""
    found = _leaves(CreatePreviewJobRequest(input_object="a.pptx", user_data=" <&> "))
    assert found["Operation/UserData"] == " <&> "


def test_a_create_names_the_callers_queue_or_the_buckets() -> None:
    """Without both it names none."""
    unnamed, named = CreatePreviewJobRequest(), CreatePreviewJobRequest(queue_id="pmine")
    assert "QueueId" not in _leaves(unnamed)
    assert _leaves(unnamed, WITH_QUEUE)["QueueId"] == "pdefault"
    assert _leaves(named, WITH_QUEUE)["QueueId"] == "pmine"


def test_only_creates_are_unrepeatable() -> None:
    """The mark is for the transport."""
    assert requests.create(CreatePreviewJobRequest(), BUCKET, BUCKET).unrepeatable
    assert not requests.get(BUCKET, "j1").unrepeatable


def test_the_text_form_of_a_request_does_not_show_a_password() -> None:
    """The body is left out."""
    create = CreatePreviewJobRequest(options=PreviewOptions(password="s3cret"))
    assert "s3cret" not in repr(requests.create(create, BUCKET, BUCKET))


def test_repeated_states_are_sent_once() -> None:
    """In the order of the request."""
    request = ListPreviewJobsRequest(
        states=[PreviewJob.STATE_SUCCESS, PreviewJob.STATE_SUBMITTED, PreviewJob.STATE_SUCCESS]
    )
    assert dict(requests.list_jobs(request, BUCKET, size=1, cursor="").query)["states"] == "Success,Submitted"


def test_objects_are_read_from_the_object_host() -> None:
    """Of the bucket."""
    request = requests.read_object(BUCKET, "a b/${x}.jpg")
    assert request.host == "examplebucket-1250000000.cos.ap-chongqing.myqcloud.com"
    assert request.target == "/a%20b/%24%7Bx%7D.jpg"


def test_the_headers_of_a_read_object_may_be_replaced() -> None:
    """By parameters, which are signed with the rest."""
    request = requests.read_object(BUCKET, "a.jpg", content_type="image/jpeg", cache_control="private, max-age=60")
    expected = "?response-cache-control=private%2C%20max-age%3D60&response-content-type=image%2Fjpeg"
    assert request.target == f"/a.jpg{expected}"


def test_a_watermark_is_sent_as_the_vendors_sdks_send_an_image() -> None:
    """By the address of its object, without a signature; unset numbers are left to the cloud."""
    address, bucket, key = IMAGE
    image = ObjectLocation(bucket=bucket, region="ap-guangzhou", object=key)
    prefix = "Operation/DocProcess/DocWatermark/"

    def sent(watermark: Watermark) -> dict[str, str]:
        found = _leaves(CreatePreviewJobRequest(options=PreviewOptions(watermark=watermark)))
        return {name.removeprefix(prefix): text for name, text in found.items() if name.startswith(prefix)}

    assert sent(Watermark(image=image)) == {"Type": "1", "Image": address}
    tiled = Watermark(image=image, dx=0, dy=7, tiled=True, horizontal_spacing=20, vertical_spacing=30)
    assert sent(tiled) == {
        "Type": "1",
        "Image": address,
        "Dx": "0",
        "Dy": "7",
        "Batch": "1",
        "HorizontalSpacing": "20",
        "VerticalSpacing": "30",
    }
