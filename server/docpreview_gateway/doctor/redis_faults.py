"""What is wrong with a Redis or Valkey server that cannot be used, and what to do about it.

Imported only with shared state.
"""

from __future__ import annotations

import ssl

from redis import exceptions
from redis.asyncio.sentinel import MasterNotFoundError

from docpreview_gateway.storage import redis_urls
from docpreview_gateway.storage.redis_client import RedisCallError, causes, words
from docpreview_gateway.storage.redis_keys import PREFIX

ACL = f"allow the user the keys, the channels and the command: ACL SETUSER <user> ~{PREFIX}* &{PREFIX}* +@all"
FULL = "give the server more memory (maxmemory); it has reached its limit and takes no writes"
REPLICA = "name the master, or use redis+sentinel://: this server is a replica and takes no writes"

_REPLIES = {
    "used memory > 'maxmemory'": FULL,
    "read only replica": REPLICA,
    "unable to persist": "free some space on the server's disk: it takes no writes while it cannot save them",
    "DB index is out of range": "write a lower database into the URL, such as /0: the server has 16 unless it is set",
    "can't run this command": f"{ACL}, +info +config|get among them",
    "cluster support disabled": "use redis:// in place of redis+cluster://: this server is not one of a cluster",
    "unknown command 'SENTINEL'": (
        "this is no Sentinel: name Sentinels, mostly on port 26379, or use redis:// for a server without them"
    ),
    "unknown command 'CLUSTER'": "this is no node of a cluster: use redis:// or, if it is a Sentinel, redis+sentinel://",
    "unknown command 'EVAL": "if this is a Sentinel, use redis+sentinel://; the gateway needs a server with scripts",
    "SELECT is not allowed in cluster mode": "use redis+cluster://, without a database: this is a node of a cluster",
}
"""What to do, by words of replies."""

_NODE = "use redis+cluster:// in place of redis://: this server is a node of a cluster"
_HALF = "complete the cluster: `redis-cli --cluster check HOST:PORT` says what is missing"
_OTHER_NAME = "write the name that its certificate has into the URL, or ssl_check_hostname=false"
_AUTHORITY = "name its authority: ?ssl_ca_certs=/path/ca.pem at the end of the URL"
_CERTIFICATES = {
    9: "wait until it is valid, or correct this machine's clock",
    10: "renew the server's certificate",
    62: _OTHER_NAME,
    64: _OTHER_NAME,
}
"""What to do about a certificate, by OpenSSL's codes: not valid yet, expired, of another name or address."""


def fault(error: BaseException, url: str) -> tuple[str, str]:
    """What is wrong, and what to do, for a RedisCallError or an error that was raised from one."""
    found = causes(error)
    cause = next((each for each in found if isinstance(each, RedisCallError)), error).__cause__
    for each in found:
        if isinstance(each, ssl.SSLError):
            return _of_tls(each, url)
        if isinstance(each, exceptions.AuthenticationError | exceptions.AuthenticationWrongNumberOfArgsError):
            return f"it refuses user or password: {words(each)}", "correct user and password in the URL"
        if isinstance(each, exceptions.NoPermissionError):
            return f"the user lacks a right: {words(each)}", ACL
        if isinstance(each, exceptions.ResponseError):
            # A reply to an unknown command quotes it all.
            return f"it answers with an error: {words(each).partition(', with args')[0]}", _of_reply(each, url)
    if isinstance(cause, MasterNotFoundError):
        return words(cause), _of_sentinels(str(cause), url)
    return _of_silence(cause, url)


def _of_tls(error: ssl.SSLError, url: str) -> tuple[str, str]:
    if isinstance(error, ssl.SSLCertVerificationError):
        todo = _CERTIFICATES.get(error.verify_code, _AUTHORITY)
        return f"its certificate is not trusted: {error.verify_message}", todo
    if "ALERT" in (reason := error.reason or ""):
        return f"it refuses the TLS connection: {reason.replace('_', ' ').lower()}", _client(url)
    return "it speaks no TLS", f"write redis:// in place of rediss://; {_client(url)}"


def _of_reply(reply: exceptions.ResponseError, url: str) -> str:
    # Those of a cluster: a slot is another node's, or nobody's.
    if isinstance(reply, exceptions.ClusterDownError | exceptions.AskError | exceptions.ClusterCrossSlotError):
        return _HALF if redis_urls.parse(url).kind == "cluster" else _NODE
    known = (todo for text, todo in _REPLIES.items() if text.lower() in str(reply).lower())
    return next(known, "check that this is a Redis or Valkey server, and its log")


def _of_sentinels(text: str, url: str) -> str:
    """What to do by the kinds of errors that the library has collected of all Sentinels, which is all that it tells."""
    if "AuthenticationError" in text:
        return "correct sentinel_username and sentinel_password at the end of the URL"
    if "Error" not in text:
        return "write the name that the master has at the Sentinels (SENTINEL MASTERS tells it) after their addresses"
    return _reach(url)


def _of_silence(cause: BaseException | None, url: str) -> tuple[str, str]:
    text = "" if cause is None else words(cause)
    if isinstance(cause, exceptions.RedisClusterException) and "slots are not covered" in str(cause):
        return "not all slots of the cluster have a node", _HALF
    if isinstance(cause, TimeoutError | exceptions.TimeoutError):
        return "no answer in time", _reach(url)
    if isinstance(cause, exceptions.ConnectionError | exceptions.RedisClusterException | OSError):
        return text if text.startswith("no ") else f"no connection: {text}", _reach(url)
    return "it gives an unexpected answer", "check that this is a Redis or Valkey server, and its log"


def _reach(url: str) -> str:
    """What to do when nothing is known but that there was no answer."""
    todo = "check the address, that the server runs and is not overloaded, and firewalls on the way"
    if not url.startswith("rediss"):
        return f"{todo}; a server with TLS needs rediss://"
    return f"{todo}; a server without TLS needs redis://; {_client(url)}"


def _client(url: str) -> str:
    """What to do when the server may want another client certificate than it gets, which it does not always say."""
    if "ssl_certfile" in redis_urls.options(url):
        return "ssl_certfile must be of an authority that the server trusts"
    return "ssl_certfile is needed where it wants a client certificate"
