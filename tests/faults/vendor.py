"""The fault campaign against the vendor's SDK in place of the gateway: jobs billed per intended create."""

from __future__ import annotations

import asyncio
import random
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from qcloud_cos import CosClientError, CosConfig, CosS3Client, CosServiceError

from tests.faults.campaign import DOCUMENT, Plan, attributed, cloud
from tests.faults.gateway_process import BUCKET, REGION, SECRET_ID, SECRET_KEY
from tests.faults.nemesis import Nemesis
from tests.faults.proxy import FaultMix, FlakyProxy

if TYPE_CHECKING:
    from collections.abc import Iterator

ATTEMPTS = 6
"""Attempts of the application until the first OK; each of them with the SDK's own retries (3, its default)."""


@dataclass(frozen=True, slots=True)
class Bill:
    """Jobs that the SDK created for a plan. `surplus` counts jobs beyond the first of an id."""

    plan: Plan
    ok: int
    jobs: int
    surplus: int
    worst: int
    faults: int

    def __str__(self) -> str:
        return (
            f"vendor's SDK, seed {self.plan.seed}: {self.plan.ids} wanted, {self.ok} OK, {self.jobs} jobs billed,"
            f" {self.surplus} of them more than once wanted ({self.jobs / self.plan.ids:.2f} per intended create,"
            f" at worst {self.worst}); {self.faults} faults"
        )


async def run_vendor_campaign(plan: Plan) -> Bill:
    """Run the plan's ids through the SDK under the same faults; its process is not killed."""
    rng = random.Random(plan.seed)  # noqa: S311 - a seed makes it repeatable
    ids = [str(uuid.UUID(int=rng.getrandbits(128), version=4)) for _ in range(plan.ids)]
    async with cloud() as emulator, FlakyProxy(emulator.port, rng, FaultMix()) as proxy:
        nemesis = Nemesis(emulator, proxy, rng, operations=("create",))
        async with nemesis.faults_injected():
            ok = await _all(iter(ids), f"http://127.0.0.1:{proxy.port}", plan.clients)
        made = [job.request_id for job in attributed(emulator).values()]
    worst = max(made.count(request_id) for request_id in ids)
    return Bill(plan, ok, len(made), len(made) - len(set(made)), worst, nemesis.faults)


async def _all(ids: Iterator[str], proxy: str, clients: int) -> int:
    loop = asyncio.get_running_loop()
    succeeded = 0
    with ThreadPoolExecutor(clients) as threads:

        async def client() -> None:
            nonlocal succeeded
            for request_id in ids:
                created = await loop.run_in_executor(threads, _create, sdk, request_id)
                succeeded += created

        sdk = vendor_sdk(proxy)
        async with asyncio.TaskGroup() as group:
            for _ in range(clients):
                group.create_task(client())
    return succeeded


def vendor_sdk(proxy: str) -> CosS3Client:
    """A client whose requests go through a proxy, which may be the emulator."""
    keys = {"SecretId": SECRET_ID, "SecretKey": SECRET_KEY}
    return CosS3Client(CosConfig(Region=REGION, Scheme="http", Proxies={"http": proxy}, Timeout=2, **keys))


def _create(sdk: CosS3Client, request_id: str) -> bool:
    output = {"OutputBucket": BUCKET, "OutputRegion": REGION, "OutputObject": f"out/{request_id}/first/${{Number}}.jpg"}
    for _ in range(ATTEMPTS):
        try:
            answer = sdk.ci_create_doc_job(Bucket=BUCKET, InputObject=DOCUMENT, **output)
            if answer["JobsDetail"]["JobId"]:
                return True
        except (CosClientError, CosServiceError, KeyError, TypeError):
            continue
        except Exception:  # noqa: BLE001, S112 - the SDK also raises errors of its XML parser and of `requests`
            continue
    return False
