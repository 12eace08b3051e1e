"""Faults of the process, its files and its callers, and of the edge before it."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import trustme
import yaml

from tests.edge_process import EdgeProcess, edge_settings, free_port
from tests.fakes.webhook_receiver import Receiver
from tests.faults import http2
from tests.faults.open_loop import PATH
from tests.faults.test_silent_callers import strangers
from tests.integration.conftest import until
from tests.integration.test_certificates import NOW, Site, kubernetes_swap
from tests.integration.test_webhooks import new_secret
from tests.integration.test_workers import worker_pids
from tests.monitoring.alert_stage import said
from tests.monitoring.faults import fault

if TYPE_CHECKING:
    from pathlib import Path

    from tests.monitoring.alert_stage import Trial

CONNECTIONS = 5
"""That Envoy takes in the trial."""


def certify(folder: Path, authority: trustme.CA, days: int) -> dict[str, str]:
    """Write a certificate for so many days, and its key; the section `tls`."""
    made = authority.issue_cert("localhost", not_after=NOW + timedelta(days=days))
    made.private_key_pem.write_to_path(folder / "tls.key")
    (folder / "tls.crt").write_bytes(b"".join(blob.bytes() for blob in made.cert_chain_pems))
    return {"certificate": str(folder / "tls.crt"), "key": str(folder / "tls.key")}


@fault("DocpreviewCertificateExpiring")
async def certificate_expiring(trial: Trial) -> None:
    """Three days are left. The cure: renew the file."""
    authority = trustme.CA()
    async with trial.gateway(tls=certify(trial.folder, authority, 3)) as gateway:
        await trial.fires("DocpreviewCertificateExpiring")
        shell = trial.shell(gateway, ADDRESS=gateway.address)
        before = said(await shell.diagnose("certificate-expiring"))
        assert "notAfter=" in before
        certify(trial.folder, authority, 90)
        await trial.ends("DocpreviewCertificateExpiring")
        after = said(await shell.diagnose("certificate-expiring"))
        assert "notAfter=" in after
        assert after != before


@fault("DocpreviewReloadRefused", "DocpreviewNotListening", "DocpreviewWorkersRestarting")
async def policy_invalid(trial: Trial) -> None:
    """A new policy is invalid, and workers that crash cannot start with it. The cure: the last good one."""
    policed = trial.policed()
    async with trial.gateway("--workers", "4", **policed) as gateway:
        good = trial.policy.path.read_bytes()
        trial.policy.path.write_bytes(good + b"unknown: 1\n")
        await trial.fires("DocpreviewReloadRefused")
        shell = trial.shell(gateway)
        text = said(await shell.diagnose("reload-refused"), but=("check-config",))
        assert "new version is invalid, the old one stays" in text
        assert "unknown" in text
        for pid in (await worker_pids(gateway))[:3]:
            os.kill(pid, signal.SIGKILL)
        await trial.fires("DocpreviewNotListening", "DocpreviewWorkersRestarting")
        await until(lambda: "\nerror: " in trial.log)
        text = said(await shell.diagnose("not-listening"))
        assert '"event":"a worker ended and is started again"' in text
        assert "unknown key" in text
        assert '"code":-9' in said(await shell.diagnose("workers-restarting"))
        trial.policy.path.write_bytes(good)
        await trial.ends("DocpreviewReloadRefused", "DocpreviewNotListening", "DocpreviewWorkersRestarting")


@fault("DocpreviewGatewayDown")
async def gateway_down(trial: Trial) -> None:
    """The only gateway is killed. The cure: start it again."""
    async with trial.gateway() as gateway:
        await trial.scraped("docpreview_build_info")
        await gateway.kill()
        await trial.fires("DocpreviewGatewayDown")
        text = said(await trial.shell(gateway).diagnose("gateway-down"))
        assert f'job="{trial.job}"' in text
        assert '"event":"serving"' in text
    async with trial.gateway():
        await trial.ends("DocpreviewGatewayDown")


@fault("DocpreviewSilentCallers")
async def silent_callers(trial: Trial) -> None:
    """A stranger begins calls and sends no message: each is ended after ten seconds."""
    async with trial.gateway() as gateway, AsyncExitStack() as stack:
        for _ in range(4):
            found = await stack.enter_async_context(strangers(gateway.port, 1, http2.HELLO, answers=True))
            found.each[0].begin(PATH, 40, b"")
            await asyncio.sleep(3)
        await trial.fires("DocpreviewSilentCallers")
        text = said(await trial.shell(gateway).diagnose("silent-callers"))
        assert "no_message" in text
        assert "('127.0.0.1', 4)" in text
        await trial.ends("DocpreviewSilentCallers")


@fault("DocpreviewEdgeRefusesConnections")
async def edge_refuses_connections(trial: Trial) -> None:
    """Strangers hold more connections than Envoy takes."""
    edge = edge_settings(max_connections=CONNECTIONS)
    ports: dict[str, Any] = {"listen": f"127.0.0.1:{free_port()}", "edge": edge}
    async with trial.gateway(**ports) as gateway, EdgeProcess(*trial.edge) as envoy:
        trial.stage.scrape(trial.job, "edge", envoy.metrics, "/stats/prometheus")
        await trial.scraped("envoy_listener_downstream_global_cx_overflow")
        async with strangers(envoy.port, CONNECTIONS + 3, http2.HELLO, answers=True):
            await trial.fires("DocpreviewEdgeRefusesConnections")
            shell = trial.shell(gateway, edge=envoy.metrics)
            text = said(await shell.diagnose("edge-refuses-connections"))
            assert "envoy_http_downstream_cx_active" in text
        await trial.ends("DocpreviewEdgeRefusesConnections")


@fault("DocpreviewEdgeKeepsOldCertificates", beside=("DocpreviewReloadRefused",))
async def edge_keeps_old_certificates(trial: Trial) -> None:
    """A certificate that is not that of its key. The cure: the pair of before, then `edge-config`."""
    site, mount = Site(trial.folder), trial.folder / "mount"
    good = {"tls.crt": site.certificate.read_bytes(), "tls.key": site.key.read_bytes()}
    site.renew()
    kubernetes_swap(mount, good, 0)
    changes: dict[str, Any] = {
        "policy": {"file": str(site.policy.path)},
        "tls": {
            "certificate": str(mount / "tls.crt"),
            "key": str(mount / "tls.key"),
            "client_ca": str(site.client_ca),
        },
        "listen": f"127.0.0.1:{free_port()}",
        "edge": edge_settings(),
    }
    async with trial.gateway(**changes) as gateway, EdgeProcess(*trial.edge) as envoy:
        trial.stage.scrape(trial.job, "edge", envoy.metrics, "/stats/prometheus")
        await trial.scraped("envoy_sds_key_rotation_failed")
        kubernetes_swap(mount, good | {"tls.crt": site.certificate.read_bytes()}, 1)
        await trial.fires("DocpreviewEdgeKeepsOldCertificates")
        shell = trial.shell(gateway, edge=envoy.metrics, EDGE=str(trial.edge[1]))
        text = said(await shell.diagnose("edge-keeps-old-certificates"), but=("check-config", "kubectl logs"))
        assert "envoy_sds_key_rotation_failed" in text
        kubernetes_swap(mount, good, 2)
        said(await shell.mend("edge-keeps-old-certificates"))
        await trial.ends("DocpreviewEdgeKeepsOldCertificates")


@fault("DocpreviewWebhooksUndelivered")
async def receiver_of_webhooks_down(trial: Trial) -> None:
    """Nothing listens at the address of a target. The cure: it listens again."""
    receiver = Receiver()
    async with receiver.listening():
        pass
    changes = trial.policed(webhooks=["orders"])
    secret = trial.folder / "orders.secret"
    secret.write_text(new_secret())
    whole = yaml.safe_load(trial.policy.path.read_text())
    whole["webhooks"] = {"orders": {"url": receiver.url, "secret_file": str(secret)}}
    trial.policy.path.write_text(yaml.safe_dump(whole))
    async with trial.gateway(**changes) as gateway:
        await trial.create(gateway, webhook="orders")
        trial.emulator.release_jobs()
        await trial.fires("DocpreviewWebhooksUndelivered")
        text = said(await trial.shell(gateway).diagnose("webhooks-undelivered"))
        assert 'outcome="unreachable"' in text
        assert '"target":"orders"' in text
        async with receiver.listening():
            await trial.ends("DocpreviewWebhooksUndelivered")
        assert len(receiver.received) == 1
