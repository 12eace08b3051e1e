"""Writers of the XML documents of object hosts: lists of a bucket, multipart uploads, copies, deletions."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from docpreview_emulator.clock import iso_time
from docpreview_emulator.documents import document, element, leaf
from docpreview_emulator.listings import KeyPage, KeyQuery
from docpreview_emulator.model import Bucket, Multipart, Part, StoredObject


def buckets_response(buckets: Iterable[tuple[Bucket, float]]) -> bytes:
    """The answer to `GET /` of `service.cos.<suffix>` and `cos.<region>.<suffix>`."""
    listed = (
        element(
            "Bucket",
            leaf("Name", bucket.name),
            leaf("Location", bucket.region),
            leaf("CreationDate", iso_time(created)),
            leaf("BucketType", "cos"),
        )
        for bucket, created in buckets
    )
    who = (leaf("ID", "qcs::cam::uin/100000000001:uin/100000000001"), leaf("DisplayName", "100000000001"))
    parts = (element("Owner", *who), element("Buckets", *listed), leaf("IsTruncated", "false"))
    return document(element("ListAllMyBucketsResult", *parts))


def objects_response(bucket: Bucket, query: KeyQuery, page: KeyPage[StoredObject]) -> bytes:
    """The answer to `GET /` of a bucket."""
    parts = [
        leaf("Name", bucket.name),
        *_encoding(query, "EncodingType"),
        _text(query, "Prefix", query.prefix),
        _text(query, "Marker", query.marker),
        leaf("MaxKeys", query.size),
        *_delimiter(query),
        leaf("IsTruncated", str(bool(page.next_marker)).lower()),
    ]
    if page.next_marker:
        parts.append(_text(query, "NextMarker", page.next_marker))
    parts += [_contents(query, stored) for stored in page.items]
    return document(element("ListBucketResult", *parts, *_prefixes(query, page.prefixes)))


def _contents(query: KeyQuery, stored: StoredObject) -> str:
    return element(
        "Contents",
        _text(query, "Key", stored.key),
        leaf("LastModified", iso_time(stored.modified)),
        leaf("ETag", f'"{stored.etag}"'),
        leaf("Size", stored.size),
        owner("Owner", stored.bucket),
        leaf("StorageClass", "STANDARD"),
    )


def uploads_response(bucket: Bucket, query: KeyQuery, after_id: str, page: KeyPage[Multipart]) -> bytes:
    """The answer to `GET /?uploads` of a bucket."""
    parts = [
        leaf("Bucket", bucket.name),
        *_encoding(query, "EncodingType"),
        _text(query, "KeyMarker", query.marker),
        leaf("UploadIdMarker", after_id),
        leaf("MaxUploads", query.size),
        _text(query, "Prefix", query.prefix),
        *_delimiter(query),
        leaf("IsTruncated", str(bool(page.next_marker)).lower()),
    ]
    if page.next_marker:
        ends_with_upload = bool(page.items) and page.items[-1].key == page.next_marker
        parts.append(_text(query, "NextKeyMarker", page.next_marker))
        parts.append(leaf("NextUploadIdMarker", page.items[-1].upload_id if ends_with_upload else ""))
    parts += [_upload(query, multipart) for multipart in page.items]
    return document(element("ListMultipartUploadsResult", *parts, *_prefixes(query, page.prefixes)))


def _upload(query: KeyQuery, multipart: Multipart) -> str:
    return element(
        "Upload",
        _text(query, "Key", multipart.key),
        leaf("UploadId", multipart.upload_id),
        leaf("StorageClass", "STANDARD"),
        owner("Initiator", multipart.bucket),
        owner("Owner", multipart.bucket),
        leaf("Initiated", iso_time(multipart.begun)),
    )


def initiated_response(bucket: Bucket, key: str, upload_id: str) -> bytes:
    """The answer to the begin of a multipart upload."""
    parts = (leaf("Bucket", bucket.name), leaf("Key", key), leaf("UploadId", upload_id))
    return document(element("InitiateMultipartUploadResult", *parts))


def completed_response(host: str, stored: StoredObject) -> bytes:
    """The answer to the completion of a multipart upload."""
    location = leaf("Location", f"{host}/{stored.key}")
    parts = (location, leaf("Bucket", stored.bucket.name), leaf("Key", stored.key), leaf("ETag", f'"{stored.etag}"'))
    return document(element("CompleteMultipartUploadResult", *parts))


@dataclass(frozen=True, slots=True)
class PartPage:
    """A page of the parts of an upload: those after the number `after`, at most `size`."""

    parts: Sequence[Part]
    after: int
    size: int
    is_truncated: bool


def parts_response(multipart: Multipart, page: PartPage, *, url_encoded: bool) -> bytes:
    """The answer to a list of the parts of a multipart upload."""
    head = [
        leaf("Bucket", multipart.bucket.name),
        *([leaf("EncodingType", "url")] if url_encoded else []),
        leaf("Key", quote(multipart.key) if url_encoded else multipart.key),
        leaf("UploadId", multipart.upload_id),
        owner("Owner", multipart.bucket),
        owner("Initiator", multipart.bucket),
        leaf("StorageClass", "STANDARD"),
        leaf("PartNumberMarker", page.after),
        leaf("MaxParts", page.size),
        leaf("IsTruncated", str(page.is_truncated).lower()),
    ]
    if page.is_truncated and page.parts:
        head.append(leaf("NextPartNumberMarker", page.parts[-1].number))
    return document(element("ListPartsResult", *head, *map(_part, page.parts)))


def _part(part: Part) -> str:
    return element(
        "Part",
        leaf("PartNumber", part.number),
        leaf("LastModified", iso_time(part.modified)),
        leaf("ETag", f'"{part.etag}"'),
        leaf("Size", part.size),
    )


def copied_response(stored: StoredObject) -> bytes:
    """The answer to a copy of an object."""
    parts = (leaf("ETag", f'"{stored.etag}"'), leaf("CRC64", stored.crc64))
    return document(element("CopyObjectResult", *parts, leaf("LastModified", iso_time(stored.modified))))


def copied_part_response(etag: str, now: float) -> bytes:
    """The answer to a copy into a part of a multipart upload."""
    return document(element("CopyPartResult", leaf("ETag", f'"{etag}"'), leaf("LastModified", iso_time(now))))


def deleted_response(keys: Iterable[str]) -> bytes:
    """The answer to a deletion of several objects."""
    return document(element("DeleteResult", *(element("Deleted", leaf("Key", key)) for key in keys)))


def owner(name: str, bucket: Bucket) -> str:
    """The account of a bucket, by the number that ends its name."""
    account = bucket.name.rpartition("-")[2]
    return element(name, leaf("ID", account), leaf("DisplayName", account))


def _text(query: KeyQuery, name: str, text: str) -> str:
    return leaf(name, quote(text) if query.url_encoded else text)


def _encoding(query: KeyQuery, name: str) -> list[str]:
    return [leaf(name, "url")] if query.url_encoded else []


def _delimiter(query: KeyQuery) -> list[str]:
    return [_text(query, "Delimiter", query.delimiter)] if query.delimiter else []


def _prefixes(query: KeyQuery, prefixes: Iterable[str]) -> list[str]:
    return [element("CommonPrefixes", _text(query, "Prefix", prefix)) for prefix in prefixes]
