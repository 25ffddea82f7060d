"""A real Alertmanager: it takes slotune's alerts, resolves them, and its own webhook is evidence for slotune."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from pathlib import Path

import pytest
import uvicorn

from demo.processes import free_port
from detection.model import Incident
from slotune.commands import serve
from slotune.compose import open_ledger
from slotune.connections import EnvironmentConnections
from slotune.places import ledger_url
from slotune.web.app import create_app
from slotune.web.guards import with_token
from tests.alertmanager_server import alertmanager, until
from tests.fakes.catcher import catching
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning.channel_settings import ChannelSettings
from tuning.loop.announce import closed_mail, opened_mail
from tuning.loop.open_incidents import open_incidents_of
from tuning.notifiers import get
from tuning.notifiers.settings import MailSettings
from tuning.ports import Probed, Repeated

pytestmark = [pytest.mark.server, pytest.mark.timeout(180)]
TOKEN = "the-sender's-token"


def test_an_open_incident_fires_and_a_closed_one_is_resolved(tmp_path: Path) -> None:
    loop = parts(World(), FakeLedger(), KeptMails(), SERVICES)
    at_s = time.time()
    incident = Incident(id="i1", service="ranker", symptom="latency", tier="act", severity="critical", opened_at_s=at_s - 60, detected_at_s=at_s,
                        signals=("p95_ms",), anomalies=(), reason="P95 4310 ms is over the SLO of 150 ms")  # fmt: skip
    with catching() as catcher, alertmanager(tmp_path, {"url": f"http://{catcher.place}/hook"}) as url:
        channel = ChannelSettings(name="am", by="alertmanager", connection="am")
        notifier = get("alertmanager")(channel, MailSettings(), EnvironmentConnections({"SLOTUNE_CONN_AM": url}))
        assert isinstance(notifier, Repeated) and isinstance(notifier, Probed) and notifier.probe().startswith("Alertmanager 0.")
        for _ in range(3):  # as sweeps do
            notifier.stand([opened_mail(loop, incident, time.time())])
        until(lambda: [b["status"] for b in catcher.bodies] == ["firing"], 30, "the alert")
        notifier.stand([closed_mail(loop, incident, time.time())])
        until(lambda: [b["status"] for b in catcher.bodies] == ["firing", "resolved"], 30, "its end")
    (fired,), (resolved,) = (body["alerts"] for body in catcher.bodies)
    assert fired["labels"] == resolved["labels"] == {"alertname": "SlotuneIncident", "service": "ranker", "severity": "critical", "about": "i1", "symptom": "latency"}
    assert "4310 ms" in fired["annotations"]["summary"]


def test_its_webhook_opens_an_incident_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "services.yaml").write_text("services:\n  - {name: ranker, serving: triton, selectors: {m: r}, slo: {p95: 1s}}\n")
    monkeypatch.setenv("SLOTUNE_CONFIG", str(tmp_path / "services.yaml"))
    monkeypatch.setenv("SLOTUNE_LEDGER_URL", f"sqlite:///{tmp_path / 'ledger.db'}")
    port = free_port()
    app = create_app(serve.reading, take=serve.take, may_alert=with_token(TOKEN))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="error"))
    threading.Thread(target=server.run, daemon=True).start()
    hook = {"url": f"http://127.0.0.1:{port}/alerts", "http_config": {"authorization": {"credentials": TOKEN}}}
    try:
        with alertmanager(tmp_path / "am", hook) as url:
            alert = {"labels": {"alertname": "SlowAnswers", "service": "ranker"}, "annotations": {"summary": "p95 is 2 s"}}
            ends = {"endsAt": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 600))}
            send(url, {**alert, **ends})
            ledger = open_ledger(ledger_url())
            until(lambda: len(open_incidents_of(ledger, time.time())) == 1, 30, "the incident")
    finally:
        server.should_exit = True
    (incident,) = open_incidents_of(ledger, time.time())
    assert (incident.service, incident.tier, incident.reason) == ("ranker", "act", "Alert SlowAnswers: p95 is 2 s")


def send(url: str, alert: dict) -> None:
    request = urllib.request.Request(f"{url}/api/v2/alerts", json.dumps([alert]).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert answer.status == 200
