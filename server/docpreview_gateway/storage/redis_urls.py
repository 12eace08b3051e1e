"""URLs of Redis and Valkey: one server, a master behind Sentinels, or a cluster.

The schemes `redis`, `rediss` (TLS) and `unix` are those of the client library, which has none for the others. The
gateway's own are `redis+sentinel://[[user]:password@]host[:port],host[:port]/service[/database]` and
`redis+cluster://[[user]:password@]host[:port],host[:port]`, with `rediss+` for TLS.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

FORMS = (
    "must be redis://[[user]:password@]host[:port][/database], redis+sentinel://[[user]:password@]host[:port],.../service"
    "[/database], redis+cluster://[[user]:password@]host[:port],..., each with rediss for TLS, or "
    "unix://[user:password@]/path"
)
TLS_FILES = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_TLS = frozenset({*TLS_FILES, "ssl_check_hostname"})
_OPTIONS = {
    "server": _TLS | {"db"},
    "sentinel": _TLS | {"sentinel_username", "sentinel_password"},
    "cluster": _TLS,
}
_WRONG_CHARACTERS = re.compile(r"\s|%(?![0-9A-Fa-f]{2})")
_TRUTHS = frozenset({"true", "false", "1", "0", "yes", "no"})
_PORTS = {"sentinel": 26379, "cluster": 6379}
_SCHEME = re.compile(r"redis(?P<tls>s?)\+(?P<kind>sentinel|cluster)")
_HOST = re.compile(r"(?P<host>\[[0-9A-Fa-f:.]+\]|[^\[\]:/@,\s]+)(?::(?P<port>[0-9]{1,5}))?")


@dataclass(frozen=True, slots=True)
class RedisAddress:
    """A parsed URL. For the kind `server` the library parses `url` itself, and the other fields are empty.

    `hosts` are Sentinels or nodes of a cluster, one of which has to answer. `service` is the master's name at the
    Sentinels. `repr` shows no secrets.
    """

    kind: Literal["server", "sentinel", "cluster"]
    url: str = field(repr=False)
    hosts: tuple[tuple[str, int], ...] = ()
    service: str = ""
    database: int = 0
    tls: bool = False
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    options: dict[str, str] = field(default_factory=dict, repr=False)


def parse(text: str) -> RedisAddress:
    """Parse a URL. ValueError names the accepted forms, and quotes nothing of `text`, which may hold a password."""
    url, scheme = _split(text)
    kind: Literal["server", "sentinel", "cluster"] = "server"
    if scheme is not None:
        kind = "sentinel" if scheme["kind"] == "sentinel" else "cluster"
    options = dict(parse_qsl(url.query, keep_blank_values=True))
    if kind == "server":
        _check_server(url.scheme, url.path.strip("/") if url.scheme == "unix" else url.netloc.rpartition("@")[2])
    if url.fragment:
        raise ValueError(FORMS)
    if not options.keys() <= _OPTIONS[kind]:
        raise ValueError(f"the options of the URL may be {', '.join(sorted(_OPTIONS[kind]))}; time-outs are settings")
    _check_tls(url.scheme, options)
    if scheme is None:
        place = options.get("db", "0") if url.scheme == "unix" else url.path.removeprefix("/") + options.get("db", "")
        _database(place)
        return RedisAddress(kind, text)
    user, _, hosts = url.netloc.rpartition("@")
    username, _, password = user.partition(":")
    service, _, database = url.path.strip("/").partition("/")
    if (kind == "sentinel") != bool(service):
        raise ValueError(FORMS)
    return RedisAddress(
        kind,
        text,
        hosts=tuple(_host(each, _PORTS[kind]) for each in hosts.split(",")),
        service=unquote(service),
        database=_database(database),
        tls=bool(scheme["tls"]),
        username=unquote(username) or None,
        password=unquote(password) or None,
        options=options,
    )


def _split(text: str) -> tuple[SplitResult, re.Match[str] | None]:
    """The parts of a URL, and of its scheme if that is one of the gateway's own. ValueError."""
    if _WRONG_CHARACTERS.search(text.rstrip("\r\n")):
        raise ValueError("has a blank, or a % without two hexadecimal digits; write %20 for a blank, and %25 for %")
    try:
        url = urlsplit(text)
        scheme = _SCHEME.fullmatch(url.scheme)
        _ = None if scheme else url.port
        _ = unquote(text, errors="strict")
    except ValueError:
        raise ValueError(f"is no URL; special characters of a password must be %-encoded. It {FORMS}") from None
    return url, scheme


def options(text: str) -> dict[str, str]:
    """The options of a valid URL, such as `ssl_ca_certs`."""
    return dict(parse_qsl(urlsplit(text).query, keep_blank_values=True))


def sentinels(address: RedisAddress) -> list[tuple[str, str]]:
    """Each Sentinel of an address: host and port, and the URL by which it is asked as a server."""
    user, password = (quote(address.options.get(f"sentinel_{name}", ""), safe="") for name in ("username", "password"))
    login = f"{user}:{password}@" if user or password else ""
    tls = urlencode({name: value for name, value in address.options.items() if name in _TLS})
    places = [f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in address.hosts]
    return [(place, f"redis{'s' * address.tls}://{login}{place}?{tls}") for place in places]


def shown(text: str) -> str:
    """A valid URL without names and passwords, for what operators read."""
    url = urlsplit(text)
    if url.scheme == "unix":
        return f"unix://{url.path}"
    return f"{url.scheme}://{url.netloc.rpartition('@')[2]}{url.path}"


def _check_tls(scheme: str, options: dict[str, str]) -> None:
    """The library would fail at each connection with options of TLS that it does not expect."""
    if not scheme.startswith("rediss") and not options.keys().isdisjoint(_TLS):
        raise ValueError(f"{', '.join(sorted(options.keys() & _TLS))} need TLS: a URL that begins with rediss")
    if options.get("ssl_check_hostname", "true").lower() not in _TRUTHS:
        raise ValueError("ssl_check_hostname must be true or false")
    if "ssl_keyfile" in options and "ssl_certfile" not in options:
        raise ValueError("ssl_keyfile needs ssl_certfile, the certificate of this key")


def _check_server(scheme: str, place: str | None) -> None:
    if scheme.startswith("valkey"):
        raise ValueError(f"an address of Valkey begins with redis, with TLS rediss, too. It {FORMS}")
    if scheme not in {"redis", "rediss", "unix"} or not place:
        raise ValueError(FORMS)
    if scheme != "unix":
        _host(place, _PORTS["cluster"])


def _database(text: str) -> int:
    if not re.fullmatch("[0-9]{0,9}", text):
        raise ValueError("the database must be a number, such as /0")
    return int(text or 0)


def _host(text: str, port: int) -> tuple[str, int]:
    found = _HOST.fullmatch(text)
    if found is None or not 0 < int(found["port"] or port) < 2**16:
        raise ValueError(FORMS)
    return found["host"].strip("[]"), int(found["port"] or port)
