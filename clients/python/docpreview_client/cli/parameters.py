"""Options shared by several commands, one dataclass per group.

`command` turns every field into an option; the field's annotation has its name and help text.
"""

import os
import ssl
from dataclasses import dataclass, fields
from datetime import timedelta
from enum import StrEnum
from itertools import chain
from pathlib import Path
from typing import Annotated, Self

import typer

from docpreview.v1.preview_job_pb2 import ObjectLocation, PreviewOptions, Watermark
from docpreview_client.options import Tls
from docpreview_client.page_files import output_template
from docpreview_client.requests import CreateFields
from docpreview_client.tokens import checked

DEFAULT_TARGET = "127.0.0.1:50051"
_CONNECTION = "Connection"
_CONVERSION = "Conversion"

BUCKET_VARIABLE = "DOCPREVIEW_BUCKET"
Bucket = Annotated[
    str | None,
    typer.Argument(
        metavar="BUCKET",
        help=f"Bucket of the source documents, NAME-APPID; may be left out where {BUCKET_VARIABLE} is set.",
        show_default=False,
    ),
]
JobId = Annotated[str | None, typer.Argument(metavar="JOB_ID", help="Id of the job.", show_default=False)]


class Format(StrEnum):
    """Format of the results."""

    JPG = "jpg"
    PNG = "png"
    PDF = "pdf"


class Orientation(StrEnum):
    """Paper orientation of spreadsheets."""

    PORTRAIT = "portrait"
    LANDSCAPE = "landscape"


class Paper(StrEnum):
    """Paper size of spreadsheets."""

    A4 = "a4"
    A2 = "a2"
    A0 = "a0"


class Comments(StrEnum):
    """Treatment of comments."""

    HIDE = "hide"
    SHOW = "show"


def _connection(*names: str, text: str) -> object:
    return typer.Option(*names, help=text, rich_help_panel=_CONNECTION, show_default=False)


def _conversion(*names: str, text: str) -> object:
    return typer.Option(*names, help=text, rich_help_panel=_CONVERSION, show_default=False)


def named_bucket(bucket: str | None) -> str:
    """The bucket: argument, environment."""
    if name := bucket or os.environ.get(BUCKET_VARIABLE):
        return name
    raise typer.BadParameter(f"Give BUCKET, or set {BUCKET_VARIABLE}.")


def named_in_bucket(first: str | None, last: str | None, name: str) -> tuple[str, str]:
    """The bucket and what is in it: of two arguments the bucket is the first, one alone is what is in it."""
    if first is None:
        raise typer.BadParameter(f"Give {name}, and BUCKET before it unless {BUCKET_VARIABLE} is set.")
    if last is not None:
        return first, last
    if bucket := os.environ.get(BUCKET_VARIABLE):
        return bucket, first
    raise typer.BadParameter(f"Give BUCKET and {name}, or set {BUCKET_VARIABLE}: {first} is only one of them.")


@dataclass(frozen=True, kw_only=True)
class ConnectionOptions:
    """Connection and output options. They are accepted before and after the command's name."""

    target: Annotated[
        str | None,
        _connection("--target", text=f"Gateway address. [env: DOCPREVIEW_TARGET; default: {DEFAULT_TARGET}]"),
    ] = None
    token_file: Annotated[
        Path | None, _connection("--token-file", text="File with the bearer token. [env: DOCPREVIEW_TOKEN, the token]")
    ] = None
    tls: Annotated[bool, _connection("--tls", text="Encrypt; implied by --ca, --cert and --server-name.")] = False
    ca: Annotated[Path | None, _connection("--ca", text="PEM file of the authorities to trust.")] = None
    cert: Annotated[Path | None, _connection("--cert", text="PEM file of the client certificate.")] = None
    key: Annotated[Path | None, _connection("--key", text="PEM file of the client certificate's key.")] = None
    server_name: Annotated[
        str | None, _connection("--server-name", text="Name that the gateway's certificate must have.")
    ] = None
    timeout: Annotated[
        float | None,
        typer.Option("--timeout", min=0.001, help="Seconds; of wait, watch and listen the whole.", show_default=False),
    ] = None
    json: Annotated[bool, typer.Option("--json", help="Print proto3 JSON, one object per line.")] = False

    def over(self, base: Self) -> Self:
        """These options, with those of `base` as defaults."""
        values = {field.name: getattr(self, field.name) or getattr(base, field.name) for field in fields(self)}
        return type(self)(**values)

    def words(self) -> tuple[str, ...]:
        """The options that say which gateway is called, and how, as they are given to another command."""
        names = ("target", "token_file", "ca", "cert", "key", "server_name")
        given = [(f"--{name.replace('_', '-')}", str(value)) for name in names if (value := getattr(self, name))]
        return (*chain.from_iterable(given), *(["--tls"] if self.tls else []))

    def address(self) -> str:
        """The gateway's address: option, environment, default."""
        return self.target or os.environ.get("DOCPREVIEW_TARGET") or DEFAULT_TARGET

    def token(self) -> str | None:
        """The bearer token: file, environment, none."""
        if self.token_file is None:
            return _token(os.environ.get("DOCPREVIEW_TOKEN", ""), "DOCPREVIEW_TOKEN") or None
        if token := _token(_read(self.token_file).decode(errors="replace"), f"--token-file {self.token_file}"):
            return token
        raise typer.BadParameter(f"--token-file {self.token_file} is empty.")

    def encryption(self) -> Tls | None:
        """TLS settings, if any option requires TLS."""
        if not (self.tls or self.ca or self.cert or self.key or self.server_name):
            return None
        return Tls(
            root_certificates=_certificates("--ca", self.ca) if self.ca else None,
            certificate_chain=_certificates("--cert", self.cert) if self.cert else None,
            private_key=_read(self.key) if self.key else None,
            server_name=self.server_name,
        )

    def deadline(self) -> timedelta | None:
        """The timeout as a timedelta."""
        return None if self.timeout is None else timedelta(seconds=self.timeout)


@dataclass(frozen=True, kw_only=True)
class PageUrlOptions:
    """Options of page URLs."""

    page_url_ttl: Annotated[
        int | None,
        typer.Option(
            "--page-url-ttl",
            min=1,
            max=3600,
            show_default=False,
            help="Give each page a signed URL, valid for so many seconds. Anyone with the URL can read the page.",
        ),
    ] = None

    def ttl(self) -> timedelta | None:
        """The TTL as a timedelta."""
        return None if self.page_url_ttl is None else timedelta(seconds=self.page_url_ttl)


@dataclass(frozen=True, kw_only=True)
class NewJobOptions:
    """Options of a new job. Unset ones have the defaults of the gateway and the cloud."""

    output: Annotated[
        str | None,
        _conversion(
            "--output",
            "-o",
            text="Template of the results' keys, with ${Number} or ${Page}, for spreadsheets ${SheetID} too. Default: "
            "out/${RequestToken}/page-${Number}.jpg",
        ),
    ] = None
    output_bucket: Annotated[str | None, _conversion("--output-bucket", text="Default: the source's bucket.")] = None
    queue_id: Annotated[str | None, _conversion("--queue-id", text="Queue to put the job in.")] = None
    user_data: Annotated[str | None, _conversion("--user-data", text="Text to attach to the job.")] = None
    request_id: Annotated[
        str | None,
        _conversion("--request-id", text="A UUID; repeating the command with the same one never makes a second job."),
    ] = None
    preset: Annotated[str | None, _conversion("--preset", text="Named options of the gateway's policy.")] = None
    webhook: Annotated[
        str | None, _conversion("--webhook", text="Target of the gateway's policy that is told when the job has ended.")
    ] = None
    format: Annotated[Format | None, _conversion("--format", text="Format of the results. Default: jpg")] = None
    source_format: Annotated[
        str | None, _conversion("--source-format", text="Suffix of the source, when its name has none.")
    ] = None
    start_page: Annotated[int | None, _conversion("--start-page", text="First page, from 1.")] = None
    end_page: Annotated[int | None, _conversion("--end-page", text="Last page; -1 is the last of the document.")] = None
    page_ranges: Annotated[str | None, _conversion("--page-ranges", text="Pages such as 1,2-4,7.")] = None
    sheet_id: Annotated[int | None, _conversion("--sheet-id", text="Spreadsheets: sheet, from 1; 0 is all.")] = None
    orientation: Annotated[
        Orientation | None, _conversion("--orientation", text="Spreadsheets: paper orientation.")
    ] = None
    paper: Annotated[Paper | None, _conversion("--paper", text="Spreadsheets: paper size.")] = None
    comments: Annotated[Comments | None, _conversion("--comments", text="Comments and tracked changes.")] = None
    image_params: Annotated[str | None, _conversion("--image-params", text="The cloud's image processing.")] = None
    quality: Annotated[int | None, _conversion("--quality", text="Percent, 1 to 100.")] = None
    zoom: Annotated[int | None, _conversion("--zoom", text="Percent, 10 to 200.")] = None
    dpi: Annotated[int | None, _conversion("--dpi", text="Dots per inch, 96 to 600.")] = None
    single_image: Annotated[bool | None, _conversion("--single-image", text="All pages in one long image.")] = None
    watermark: Annotated[
        str | None, _conversion("--watermark", text="Key of a JPEG or PNG in the bucket, put on each page.")
    ] = None
    tile_watermark: Annotated[bool, _conversion("--tile-watermark", text="Repeat it over the whole page.")] = False
    password: Annotated[
        str | None,
        _conversion(
            "--password",
            text="Give - to be prompted for the document's password. The password itself is refused here: every user "
            "of the machine could read it in the list of processes.",
        ),
    ] = None
    password_file: Annotated[
        Path | None, _conversion("--password-file", text="File whose first line is the document's password.")
    ] = None

    def output_object(self, input_object: str) -> str:
        """The template of the results' keys."""
        if self.output is not None:
            return self.output
        return output_template(input_object, self._target_format())

    def create_fields(self, timeout: timedelta | None) -> CreateFields:
        """The optional fields of the request, with the timeout."""
        return CreateFields(
            timeout=timeout,
            output_bucket=self.output_bucket or "",
            queue_id=self.queue_id or "",
            user_data=self.user_data or "",
            request_id=self.request_id or "",
            preset=self.preset or "",
            webhook=self.webhook or "",
            options=self._options(),
        )

    def _options(self) -> PreviewOptions:
        password = self._document_password()
        try:
            return self._options_with(password)
        except ValueError as error:  # a number that the contract's field cannot hold
            raise typer.BadParameter(str(error)) from error

    def _options_with(self, password: str) -> PreviewOptions:
        kinds = PreviewOptions
        return PreviewOptions(
            source_format=self.source_format or "",
            target_format=self._target_format(),
            start_page=self.start_page,
            end_page=self.end_page,
            page_ranges=self.page_ranges or "",
            sheet_id=self.sheet_id,
            paper_orientation=kinds.PaperOrientation.Value(_value("PAPER_ORIENTATION", self.orientation)),
            paper_size=kinds.PaperSize.Value(_value("PAPER_SIZE", self.paper)),
            password=password,
            comments=kinds.Comments.Value(_value("COMMENTS", self.comments)),
            image_params=self.image_params or "",
            quality=self.quality,
            zoom_percent=self.zoom,
            image_dpi=self.dpi,
            single_image=self.single_image,
            watermark=self._watermark(),
        )

    def _watermark(self) -> Watermark | None:
        if self.watermark is not None:
            return Watermark(image=ObjectLocation(object=self.watermark), tiled=self.tile_watermark)
        if self.tile_watermark:
            raise typer.BadParameter("--tile-watermark needs --watermark, the image.")
        return None

    def _target_format(self) -> PreviewOptions.TargetFormat.ValueType:
        return PreviewOptions.TargetFormat.Value(_value("TARGET_FORMAT", self.format))

    def _document_password(self) -> str:
        if self.password not in {None, "-"}:
            raise typer.BadParameter("--password accepts only -, which prompts for it. Or use --password-file.")
        if self.password_file is not None:
            if self.password is not None:
                raise typer.BadParameter("Give either --password or --password-file.")
            return _first_line(self.password_file)
        if self.password is None:
            return ""
        answer: str = typer.prompt("Password of the document", hide_input=True, err=True)
        return answer


def _token(text: str, place: str) -> str:
    """The token in a text, without the white space around it; the refusal does not show it."""
    lines = [line for line in (line.strip() for line in text.splitlines()) if line]
    if len(lines) > 1:
        raise typer.BadParameter(f"{place} has {len(lines)} lines: a token is one line.")
    try:
        return checked(lines[0]) if lines else ""
    except ValueError as error:
        raise typer.BadParameter(f"{place}: {error}") from error


def _first_line(path: Path) -> str:
    """The password in a file; the refusal does not show it."""
    try:
        line = _read(path).decode().split("\n", 1)[0].rstrip("\r")
    except UnicodeDecodeError:
        raise typer.BadParameter(f"--password-file {path} is not UTF-8 text.") from None
    if not line:
        raise typer.BadParameter(f"--password-file {path} has no password in its first line.")
    return line


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise typer.BadParameter(f"{path}: {error.strerror}") from error


def _certificates(option: str, path: Path) -> bytes:
    """A PEM file of certificates. gRPC would say only that it cannot make a connection with it."""
    found = _read(path)
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cadata=found.decode("ascii", "ignore"))
    except (ssl.SSLError, ValueError):  # the latter when it is empty
        raise typer.BadParameter(f"{option} {path} has no certificates in PEM.") from None
    return found


def _value(prefix: str, choice: StrEnum | None) -> str:
    return f"{prefix}_{choice.name if choice else 'UNSPECIFIED'}"
