"""No secret of a connection reaches a log, a mail, a record or an error: planted ones are looked for everywhere."""

from __future__ import annotations

import logging

import pytest

from detection.errors import SlotuneError
from slotune.compose import build
from slotune.connections import EnvironmentConnections
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import KeptMails, World, parts
from tuning.loop.once import run_once
from tuning.services_yaml import loads

SECRET = "planted-secret"
ENVIRONMENT = {
    "SLOTUNE_CONN_SLOTUNE_PROMETHEUS": f"http://user:{SECRET}@127.0.0.1:1?token={SECRET}",
    "SLOTUNE_CONN_RANKER_CONTROL": f"http://user:{SECRET}@127.0.0.1:1",
    "SLOTUNE_CONN_CLUSTER": f"http://user:{SECRET}@127.0.0.1:1?token={SECRET}",
    "SLOTUNE_CONN_SMTP_DEFAULT": f"smtp://user:{SECRET}@127.0.0.1:1?timeout=1",
}
SERVICES = """
prometheus: {rate_window: 15s, step: 5s, timeout: 1s}
verification: {look: 60s, longer_look: 60s}
safety: {cool_down: 0s}
detection: {lookback: 10m, detectors: [rules], close_after: 60s}
mail: {to: [oncall@example.com]}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 150ms, for: 10s}
    mode: act
    levers:
      batch_size: {min: 1, max: 32, connection: ranker_control}
      replicas: {min: 1, max: 3, connection: cluster, namespace: prod, target: ranker}
"""


def test_with_every_part_down_the_secrets_stay_where_they_are(caplog, monkeypatch, tmp_path):
    """Real clients with secrets, all of them unreachable: what they say ends in records and mails."""
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("SLOTUNE_LEDGER_URL", f"sqlite:///{tmp_path}/ledger.sqlite")
    settings = loads(SERVICES)
    real = build(settings, EnvironmentConnections(ENVIRONMENT), sleep=lambda _s: None)
    world, ledger, mails = World(qps=lambda t: 60.0 if t < 120 else 180.0), FakeLedger(), KeptMails()
    loop = parts(world, ledger, mails, SERVICES)
    said = []
    with pytest.raises(SlotuneError) as caught:
        run_once(real, world.now, world.wait_until)
    said.append(str(caught.value))
    world.wait(200)
    # The world's metrics with the real actuators and the real mailer.
    from dataclasses import replace

    mixed = replace(loop, actuator=real.actuator, notifiers=[*real.notifiers, mails])
    for report in run_once(mixed, world.now, world.wait_until):
        said.append(report.model_dump_json())
    assert len(said) > 1 and mails.mails, "the incident was reported although every lever was unreachable"
    said += [mail.text + mail.html + mail.subject for mail in mails.mails]
    said += [record.model_dump_json() for record in ledger.records.values()]
    said += [record.getMessage() + str(record.exc_info) for record in caplog.records]
    said += [repr(EnvironmentConnections(ENVIRONMENT).get(name)) for name in ("cluster", "ranker_control")]
    assert [text for text in said if SECRET in text] == []
