"""Samples of values, for messages about settings: what to write in place of a mistake."""

from __future__ import annotations

from pathlib import Path
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

import yaml
from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_BY_NAME: dict[str, object] = {
    "admin_hosts": ["gateway.example.com"],
    "audience": "docpreview",
    "bucket": "documents-1250000000",
    "callers": {"shop": {"identities": [{"dns": "shop.example"}], "methods": ["GetPreviewJob"]}},
    "claim": "sub",
    "concurrency": 20,
    "credentials": "main",
    "dns": "shop.example",
    "endpoint": "http://127.0.0.1:8089",
    "image_dpi": 96,
    "issuer": "https://idp.example.com",
    "jwks_url": "https://idp.example.com/jwks.json",
    "max_pages": 100,
    "method_rates": {"CreatePreviewJob": {"per_second": 5}},
    "methods": ["GetPreviewJob"],
    "name": "documents-1250000000",
    "namespace": "previews",
    "object_url_base": "https://{host}",
    "origins": ["https://app.example.com"],
    "outage_pages": 100,
    "per_day": 5000,
    "per_month": 100000,
    "per_second": 100,
    "burst": 200,
    "prefixes": ["in/"],
    "input_prefixes": ["in/"],
    "presets": ["slides"],
    "proxy": "http://proxy.example.com:3128",
    "region": "ap-chongqing",
    "secret_id": "AKID...",
    "spiffe": "spiffe://example.com/shop",
    "token": "dpt1:...",
    "types": ["application/pdf"],
    "url": "redis://127.0.0.1:6379",
    "value": "shop",
    "version": 1,
}
"""Samples of settings whose default is none to copy, by the last part of their path."""

_FILES = {
    "certificate": "tls/tls.crt",
    "client_ca": "tls/ca.crt",
    "client_crl": "tls/revoked.crl",
    "file": "policy.yaml",
    "folder": "edge",
    "jwks_file": "jwks.json",
    "key": "tls/tls.key",
    "key_file": "ledger.key",
}


_SECTIONS: dict[str, object] = {"CredentialSettings": {"secret_id": "AKID...", "secret_key": "..."}}
"""Samples of sections whose keys are not required one by one, by the names of their classes."""


def sample(name: str, field: FieldInfo) -> object | None:
    """A value for a setting with this name, as YAML has it; None: there is none to show."""
    default = field.default
    if isinstance(default, Path):
        return str(default)
    if isinstance(default, float) and default.is_integer():
        return int(default)
    if isinstance(default, str | int | float) and default != "":
        return default
    return _of_kind(field.annotation, name)


def sample_of(kind: type) -> object | None:
    """A value of a kind that stands below a name of the operator's own, such as one of a map."""
    return _of_kind(kind, "")


def _of_kind(kind: Any, name: str) -> object | None:  # noqa: ANN401 - annotations of any kind
    origin, parts = get_origin(kind), get_args(kind)
    if origin is Annotated or origin in {Union, UnionType}:
        return _of_kind(next(part for part in parts if part is not NoneType), name)
    if origin in {tuple, dict}:
        return _of_container(origin, parts, _BY_NAME.get(name))
    if origin is Literal:
        found: object = parts[0]
        return found
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _of_model(kind)
    if kind is Path:
        return f"/etc/docpreview/{_FILES[name]}" if name in _FILES else None
    known = _BY_NAME.get(name)
    return known if isinstance(known, str | int | float) else None


def _of_container(origin: type, parts: tuple[Any, ...], known: object) -> object | None:
    """A list or map: the known one, or one of a sample of what it holds."""
    if isinstance(known, list if origin is tuple else dict):
        return known
    inner = _of_kind(parts[0] if origin is tuple else parts[1], "")
    if inner is None:
        return None
    return [inner] if origin is tuple else {"main": inner}


def _of_model(model: type[BaseModel]) -> object | None:
    """The keys that it requires, or else the first one with a sample."""
    if model.__name__ in _SECTIONS:
        return _SECTIONS[model.__name__]
    found = {name: value for name, field in model.model_fields.items() if (value := sample(name, field)) is not None}
    required = {name: value for name, value in found.items() if model.model_fields[name].is_required()}
    return required or dict(list(found.items())[:1]) or None


def flow(value: object) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False).removesuffix("...\n").strip()
