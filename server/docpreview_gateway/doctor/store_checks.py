"""Checks of what records of creates need: the state directory, the secret, the store and its server."""

from __future__ import annotations

from typing import TYPE_CHECKING

from docpreview_gateway.creates.ports import StoreError
from docpreview_gateway.doctor import records
from docpreview_gateway.doctor.diagnosis import Finding
from docpreview_gateway.doctor.record_texts import remedy_of, words_of
from docpreview_gateway.settings.loading import StartError
from docpreview_gateway.storage.key_file import OWN_NAME, KeyFileError, read_secrets
from docpreview_gateway.wiring.preflight import folder_problem

if TYPE_CHECKING:
    from pathlib import Path

    from docpreview_gateway.doctor.redis_probe import RedisProbe
    from docpreview_gateway.settings.loading import Settings
    from docpreview_gateway.storage.redis_health import RedisHealth

_KEY = "correct the file, or let the gateway's user read it"
_ASK = (
    "let the gateway's user ask: ACL SETUSER <user> +info +config|get +acl|dryrun; where that is not possible, see "
    "`State that replicas share` in docs/configuration.md"
)
_SAFE = "see `State that replicas share` in docs/configuration.md"


async def store_findings(settings: Settings) -> list[Finding]:
    """Findings on the records of creates. No record is changed; with shared state a key is written and deleted."""
    found = [_folder(settings.state_dir)]
    if is_new := _not_made(settings):
        return [*found, *is_new]
    path = settings.ledger.key_file or settings.state_dir / OWN_NAME
    try:
        secrets = read_secrets(path)
    except KeyFileError as error:
        return [*found, Finding("store", str(path), str(error), _KEY)]
    found.append(Finding("store", str(path), f"is readable, with {len(secrets)} secret{'s' * (len(secrets) > 1)}"))
    return [*found, *await _store(settings)]


def _folder(folder: Path) -> Finding:
    """Whether the state directory can be written; if it is missing, whether it can be made."""
    if problem := folder_problem(folder, may_be_full=False):
        return Finding("store", str(folder), problem, records.FOLDER)
    return Finding("store", str(folder), "can be written" if folder.exists() else "can be made")


def _not_made(settings: Settings) -> list[Finding]:
    """What the first start makes, if the gateway has not been started yet."""
    missing = [path for path in records.made_by_gateways(settings) if not path.exists()]
    return [Finding("store", str(path), "is not there yet: the first start makes it") for path in missing]


async def _store(settings: Settings) -> list[Finding]:
    try:
        status = await records.store_status(settings)
    except StartError as error:
        place = records.place_of(settings)
        return [Finding("store", place, f"cannot be read: {error}", records.reach_remedy(settings, error))]
    # Before the first start nothing is wrong with an empty store.
    remedy = "" if status.kind == "empty" else remedy_of(status)
    found = [Finding("store", status.place, words_of(status), remedy)]
    async with records.probe(settings) as server:
        return [*found, *(await _server(settings, status.place, server) if server is not None else [])]


async def _server(settings: Settings, place: str, server: RedisProbe) -> list[Finding]:
    """Findings on the server's settings, and whether it takes writes."""
    from docpreview_gateway.storage.redis_health import warnings  # noqa: PLC0415 - redis takes 20 MiB

    try:
        await server.write()
        found = [Finding("store", place, "can be written")]
    except StoreError as error:
        found = [Finding("store", place, f"cannot be written: {error}", records.reach_remedy(settings, error))]
    try:
        health = await server.health()
    except StoreError as error:
        todo = records.reach_remedy(settings, error)
        return [*found, Finding("store", place, f"does not tell its settings: {error}", todo)]
    found += [Finding("store", place, why, _SAFE) for why in warnings(health).values()]
    if unknown := _unknown(health):
        what = f"it is not known whether a restart loses records: the server does not say {', '.join(unknown)}"
        found.append(Finding("store", place, what, _ASK, is_warning=True))
    elif not warnings(health):
        found.append(Finding("store", place, "neither evicts keys nor forgets them when it restarts"))
    return found


def _unknown(health: RedisHealth) -> list[str]:
    """What of a restart the server does not say."""
    if health.appendonly is False:
        return []
    said = {
        "appendonly": health.appendonly,
        "appendfsync": health.appendfsync,
        "the rights of its user default": health.replays,
    }
    return [what for what, answer in said.items() if answer is None]
