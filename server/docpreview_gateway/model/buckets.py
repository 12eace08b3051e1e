"""Buckets: valid names and regions, and the hosts derived from them."""

from __future__ import annotations

import re
from dataclasses import dataclass

BUCKET = re.compile(r"(?!.{64})[a-z0-9](?:[a-z0-9-]{0,48}[a-z0-9])?-[1-9][0-9]{4,12}", re.ASCII)
"""`<name>-<appid>`: a DNS label of at most 63 characters, so that a name cannot change the host built from it."""

REGION = re.compile(r"[a-z]{2}-[a-z]+(?:-[a-z0-9]+)*", re.ASCII)
"""Canonical region names, such as `ap-chongqing`. The legacy aliases of the SDKs are not translated."""

DOMAIN = "myqcloud.com"


@dataclass(frozen=True, slots=True)
class Bucket:
    """A configured bucket; `credentials` names its credential set."""

    name: str
    region: str
    credentials: str
    default_queue_id: str = ""
    exclusive: bool = False
    """No other program makes document jobs in this bucket."""

    upload_credentials: str = ""
    """Names the credential set that signs addresses of uploads; empty: `credentials`."""

    def __post_init__(self) -> None:
        """ValueError for a name or region that could lead a request to another host."""
        if not BUCKET.fullmatch(self.name) or not REGION.fullmatch(self.region):
            raise ValueError(f"not a bucket and region: {self.name!r}, {self.region!r}")

    @property
    def ci_host(self) -> str:
        """Host of the bucket's job API."""
        return f"{self.name}.ci.{self.region}.{DOMAIN}"

    @property
    def object_host(self) -> str:
        """Host of the bucket's objects."""
        return f"{self.name}.cos.{self.region}.{DOMAIN}"
