"""Who may call: the vendor's vectors, and every way for a signature to be wrong."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from docpreview_emulator import Credential, Emulator
from docpreview_emulator.errors import CloudError
from docpreview_emulator.signatures import Policy, Signable, verify

from .cloud_client import BUCKET, COS_HOST, REGION, SECRET_ID, SECRET_KEY, Cloud, Signer

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "signing.json").read_text(encoding="utf-8"))["cases"]
TOKEN_HEADERS = ("x-ci-security-token", "x-cos-security-token")


def check(case: Mapping[str, Any], *, now: float = 1700000000, **changes: Any) -> Credential:
    """Verify a vector, perhaps changed."""
    case = {**case, **changes}
    headers = list(case["headers"].items())
    params = list(case["params"].items())
    token = next((value for name, value in headers if name in TOKEN_HEADERS), None)
    credentials = {case["secret_id"]: Credential(case["secret_id"], case["secret_key"], token)}
    signed = Signable(case["method"], case["path"], params, headers, case["authorization"])
    return verify(signed, Policy(credentials, now, 900, TOKEN_HEADERS))


@pytest.mark.parametrize("case", VECTORS, ids=lambda case: case["name"])
class TestVendorVector:
    def test_a_signature_of_the_vendors_sdk_is_accepted(self, case: Mapping[str, Any]) -> None:
        """What the vendor's SDK signs passes."""
        assert check(case).secret_id == case["secret_id"]

    def test_with_another_path(self, case: Mapping[str, Any]) -> None:
        """The path is covered."""
        with pytest.raises(CloudError, match="SignatureDoesNotMatch"):
            check(case, path=case["path"] + "x")

    def test_with_another_key(self, case: Mapping[str, Any]) -> None:
        """Another secret key does not do."""
        with pytest.raises(CloudError, match="SignatureDoesNotMatch"):
            check(case, secret_key="another")

    def test_without_a_listed_header(self, case: Mapping[str, Any]) -> None:
        """What is listed must be there."""
        headers = {name: value for name, value in case["headers"].items() if name != "host"}
        with pytest.raises(CloudError, match="SignatureDoesNotMatch"):
            check(case, headers=headers)

    def test_with_an_unlisted_header(self, case: Mapping[str, Any]) -> None:
        """What is not listed is not covered."""
        check(case, headers={**case["headers"], "x-anything": "1"})

    def test_with_a_port_in_the_host(self, case: Mapping[str, Any]) -> None:
        """The vendor's SDK signs the bare host name; HTTP adds the port."""
        check(case, headers={**case["headers"], "host": case["headers"]["host"] + ":8089"})

    def test_after_its_window(self, case: Mapping[str, Any]) -> None:
        """It expires at the end of its window, to the second."""
        check(case, now=case["valid_until"])
        with pytest.raises(CloudError, match="Request has expired"):
            check(case, now=case["valid_until"] + 1)

    def test_far_before_its_window(self, case: Mapping[str, Any]) -> None:
        """A client whose clock is far ahead is told so."""
        with pytest.raises(CloudError, match="RequestTimeTooSkewed"):
            check(case, now=case["valid_from"] - 901)


async def test_request_without_signature(cloud: Cloud) -> None:
    """Nobody is let in unsigned, and CI hosts name no resource."""
    reply = await cloud.raw("GET", "/doc_jobs", headers={"host": f"{BUCKET}.ci.{REGION}.myqcloud.com"})
    assert (reply.status, reply.text("Code")) == (403, "MissingAuthorization")
    assert reply.xml.find("Resource") is None


async def test_refusal_on_an_object_host(cloud: Cloud) -> None:
    """Object hosts name the resource."""
    reply = await cloud.send("GET", "/missing.jpg", host=COS_HOST)
    assert (reply.status, reply.text("Code")) == (404, "NoSuchKey")
    assert reply.text("Resource") == f"{COS_HOST}/missing.jpg"


async def test_half_a_signature_is_an_invalid_authorization(cloud: Cloud) -> None:
    """Half a signature is none."""
    headers = {"host": COS_HOST, "Authorization": "q-sign-algorithm=sha1&q-ak=x"}
    reply = await cloud.raw("GET", "/x", headers=headers)
    assert reply.text("Code") == "InvalidAuthorization"


async def test_an_unknown_key_is_an_invalid_access_key_id(cloud: Cloud) -> None:
    """A key that nobody has."""
    cloud.signer = Signer(secret_id="nobody")
    assert (await cloud.list()).text("Code") == "InvalidAccessKeyId"


async def test_clock_of_the_cloud_ahead(emulator: Emulator, cloud: Cloud) -> None:
    """With the cloud an hour ahead signatures are expired, and the `Date` header tells the client why."""
    emulator.clock.offset_seconds = 3600
    reply = await cloud.list()
    assert (reply.status, reply.text("Code"), reply.text("Message")) == (403, "AccessDenied", "Request has expired")
    cloud.signer.ahead = 3600
    assert (await cloud.list()).status == 200


async def test_clock_of_the_cloud_behind(emulator: Emulator, cloud: Cloud) -> None:
    """With the cloud an hour behind the difference is too large."""
    emulator.clock.offset_seconds = -3600
    assert (await cloud.list()).text("Code") == "RequestTimeTooSkewed"


async def test_a_temporary_key_needs_its_token_until_it_expires(emulator: Emulator, cloud: Cloud) -> None:
    """A temporary key needs its token, signed or not, until it expires."""
    emulator.credentials["temporary"] = Credential("temporary", SECRET_KEY, "TOKEN+/=abc")
    cloud.signer = Signer(secret_id="temporary")
    token = {"x-ci-security-token": "TOKEN+/=abc"}
    assert (await cloud.list()).text("Code") == "InvalidAccessKeyId"
    assert (await cloud.send("GET", "/docqueue", headers=token)).status == 200
    assert (await cloud.send("GET", "/x", host=COS_HOST, headers=token)).text("Code") == "InvalidAccessKeyId"
    emulator.credentials["temporary"] = Credential("temporary", SECRET_KEY, "TOKEN+/=abc", expires_at=1.0)
    reply = await cloud.send("GET", "/docqueue", headers=token)
    assert (reply.status, reply.text("Code")) == (400, "ExpiredToken")


async def test_presigned_address_in_a_browser(emulator: Emulator, cloud: Cloud) -> None:
    """The path form serves a page to whoever has its signed address, and nobody else."""
    emulator.put_object(BUCKET, REGION, "a b/中.jpg", b"page")
    query = Signer().sign("GET", "/a b/中.jpg", {}, {"host": COS_HOST})
    reply = await cloud.raw("GET", f"/_emulator/objects/{COS_HOST}/a b/中.jpg", params=query)
    assert (reply.status, reply.body) == (200, b"page")
    query["q-ak"] = SECRET_ID[::-1]
    reply = await cloud.raw("GET", f"/_emulator/objects/{COS_HOST}/a b/中.jpg", params=query)
    assert reply.status == 403


async def test_presigned_address_with_a_token(emulator: Emulator, cloud: Cloud) -> None:
    """The token may stand in the query, signed."""
    emulator.credentials["temporary"] = Credential("temporary", SECRET_KEY, "TOKEN+/=abc")
    emulator.put_object(BUCKET, REGION, "p.jpg", b"page")
    token = {"x-cos-security-token": "TOKEN+/=abc"}
    query = Signer(secret_id="temporary").sign("GET", "/p.jpg", token, {"host": COS_HOST})
    reply = await cloud.raw("GET", "/p.jpg", params={**query, **token}, headers={"host": COS_HOST})
    assert (reply.status, reply.body) == (200, b"page")
