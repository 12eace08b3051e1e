"""Names of the command's options for the contract's fields, so that errors name what a user can change."""

import re
from typing import Final

_OPTIONS: Final = {
    "output": "--output",
    "output.object": "--output",
    "output.bucket": "--output-bucket",
    "queue_id": "--queue-id",
    "user_data": "--user-data",
    "request_id": "--request-id",
    "preset": "--preset",
    "webhook": "--webhook",
    "options.source_format": "--source-format",
    "options.target_format": "--format",
    "options.start_page": "--start-page",
    "options.end_page": "--end-page",
    "options.page_ranges": "--page-ranges",
    "options.sheet_id": "--sheet-id",
    "options.paper_orientation": "--orientation",
    "options.paper_size": "--paper",
    "options.password": "--password-file",
    "options.comments": "--comments",
    "options.image_params": "--image-params",
    "options.quality": "--quality",
    "options.zoom_percent": "--zoom",
    "options.image_dpi": "--dpi",
    "options.single_image": "--single-image",
    "options.watermark": "--watermark",
    "options.watermark.tiled": "--tile-watermark",
    "page_url_ttl": "--page-url-ttl",
    "created_after": "--after",
    "created_before": "--before",
    "states": "--state",
    "order": "--oldest-first",
    "page_size": "--limit",
    "timeout": "--timeout",
}
_ARGUMENTS: Final = {"bucket": "BUCKET", "input_object": "INPUT_OBJECT", "job_id": "JOB_ID"}
_OF_PREVIEW: Final = {
    "bucket": "--bucket",
    "input_object": "DOCUMENT",
    "job_id": "--job-id",
    "object": "--upload-as",
    "content_length": "DOCUMENT",
    "content_type": "DOCUMENT",
    "content_md5": "DOCUMENT",
}
# In sentences only words that are no English ones are taken for fields: with a dot or an underscore.
_FIELD: Final = re.compile(r"`?\b((?:options|output)(?:\.[a-z_]+)+|[a-z]+(?:_[a-z]+)+)\b`?")
_FORMAT: Final = re.compile(r"\bTARGET_FORMAT_([A-Z]+)\b")


class FieldNames:
    """The names that fields have in one command."""

    def __init__(self, command: str) -> None:
        self._names = _OPTIONS | (_OF_PREVIEW if command == "preview" else _ARGUMENTS)

    def name(self, field: str) -> str:
        """The option or argument of a field, or of the message that it is in; else the field."""
        whole = field if field in self._names or "." in field else f"options.{field}"
        while whole not in self._names and "." in whole:
            whole = whole.rpartition(".")[0]
        return self._names.get(whole, field)

    def sentence(self, text: str) -> str:
        """The text with the fields in it named as options."""
        named = _FIELD.sub(self._in_sentence, text)
        return _FORMAT.sub(lambda found: f"--format {found[1].lower()}", named)

    def _in_sentence(self, found: re.Match[str]) -> str:
        name = self.name(found[1])
        return found[0] if name == found[1] else name
