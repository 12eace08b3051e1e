"""Expected wire form of creates, independent of the code under test."""

from collections.abc import Callable
from urllib.parse import quote

from docpreview.v1.preview_job_pb2 import PreviewOptions, Watermark
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


def _watermark(watermark: Watermark) -> dict[str, str]:
    image = watermark.image
    host = f"{image.bucket}.cos.{image.region}.myqcloud.com"
    found = {"Type": "1", "Image": f"https://{host}{quote('/' + image.object, safe='/-_.~')}"}
    names = {"Dx": "dx", "Dy": "dy", "HorizontalSpacing": "horizontal_spacing", "VerticalSpacing": "vertical_spacing"}
    found |= {name: str(getattr(watermark, field)) for name, field in names.items() if watermark.HasField(field)}  # type: ignore[arg-type]
    return found | ({"Batch": "1"} if watermark.tiled else {})


IMAGE = ("https://brand-1250000000.cos.ap-guangzhou.myqcloud.com/a%20b/%E9%A1%B5.png", "brand-1250000000", "a b/页.png")
"""The address of an image, its bucket, and its key."""


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
    if request.options.HasField("watermark"):
        options |= {f"DocWatermark/{name}": text for name, text in _watermark(request.options.watermark).items()}
    if not options:
        return {**found, "Operation/DocProcess": ""}
    return {**found, **{f"Operation/DocProcess/{name}": text for name, text in options.items()}}
