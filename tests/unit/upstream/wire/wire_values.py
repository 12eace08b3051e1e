"""Expected wire form of creates, independent of the code under test."""

from collections.abc import Callable

from docpreview.v1.preview_job_pb2 import PreviewOptions
from docpreview.v1.preview_job_service_pb2 import CreatePreviewJobRequest

OPTIONS: dict[str, Callable[[PreviewOptions], object]] = {
    "SrcType": lambda o: o.source_format,
    "TgtType": lambda o: ("", "jpg", "png", "pdf")[o.target_format],
    "StartPage": lambda o: o.start_page if o.HasField("start_page") else "",
    "EndPage": lambda o: o.end_page if o.HasField("end_page") else "",
    "PageRanges": lambda o: o.page_ranges,
    "SheetId": lambda o: o.sheet_id if o.HasField("sheet_id") else "",
    "PaperDirection": lambda o: ("", "0", "1")[o.paper_orientation],
    "PaperSize": lambda o: ("", "0", "1", "2")[o.paper_size],
    "DocPassword": lambda o: o.password,
    "Comments": lambda o: ("", "0", "1")[o.comments],
    "ImageParams": lambda o: o.image_params,
    "Quality": lambda o: o.quality if o.HasField("quality") else "",
    "Zoom": lambda o: o.zoom_percent if o.HasField("zoom_percent") else "",
    "ImageDpi": lambda o: o.image_dpi if o.HasField("image_dpi") else "",
    "PicPagination": lambda o: int(o.single_image) if o.HasField("single_image") else "",
}


def expected(request: CreatePreviewJobRequest, region: str) -> dict[str, str]:
    """Path and text of every element of the body."""
    options = {name: str(value) for name, read in OPTIONS.items() if (value := read(request.options)) != ""}
    found = {
        "Tag": "DocProcess",
        "Input/Object": request.input_object,
        "Operation/Output/Region": region,
        "Operation/Output/Bucket": request.output.bucket or request.bucket,
        "Operation/Output/Object": request.output.object,
        "Operation/UserData": request.user_data,
        "QueueId": request.queue_id,
    }
    found = {path: text for path, text in found.items() if text}
    if not options:
        return {**found, "Operation/DocProcess": ""}
    return {**found, **{f"Operation/DocProcess/{name}": text for name, text in options.items()}}
