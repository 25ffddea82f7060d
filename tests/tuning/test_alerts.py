"""Alerts of others: which service they are about, once however often they are sent, and evidence for the sweep."""

from __future__ import annotations

import json
from typing import Any

import pytest

from detection.errors import ConfigError
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning.alerts import FORGOTTEN_S, received, record, standing
from tuning.loop import outside, watch
from tuning.loop.open_incidents import open_incidents_of
from tuning.services_yaml import loads

AT_S = 1_800_000_000.0
TWO = SERVICES + SERVICES[SERVICES.index("  - name") :].replace("ranker", "zebra").replace("service: zebra", "service: zebra, zone: a")
FLEET = loads(TWO).service_values()


def alert(status: str = "firing", starts: str = "2027-01-15T07:59:00Z", **labels: str) -> dict[str, Any]:
    labels = {"alertname": "SlowAnswers", "severity": "critical", "service": "ranker", **labels}
    return {"status": status, "labels": {k: v for k, v in labels.items() if v}, "annotations": {"summary": "p95 is 2 s"}, "startsAt": starts,
            "endsAt": "0001-01-01T00:00:00Z", "generatorURL": "http://prometheus/graph", "fingerprint": "abc" + labels.get("pod", "")}  # fmt: skip


def alertmanager(*alerts: dict[str, Any], key: str = '{}:{alertname="SlowAnswers"}') -> bytes:
    """As https://prometheus.io/docs/alerting/latest/configuration/#webhook_config describes it."""
    return json.dumps({"version": "4", "groupKey": key, "truncatedAlerts": 0, "status": alerts[0]["status"], "receiver": "slotune", "groupLabels": {},
                       "commonLabels": {}, "commonAnnotations": {}, "externalURL": "http://am", "alerts": list(alerts)}).encode()  # fmt: skip


def grafana(*alerts: dict[str, Any]) -> bytes:
    """As Grafana's webhook contact point sends it: the same with fields of its own."""
    more = {"values": {"B": 2.1}, "valueString": "", "silenceURL": "", "dashboardURL": "", "panelURL": "", "imageURL": ""}
    body = json.loads(alertmanager(*[{**one, **more} for one in alerts])) | {"orgId": 1, "title": "[FIRING:1]", "state": "alerting", "message": "x"}
    return json.dumps(body).encode()


@pytest.mark.parametrize("body", [alertmanager, grafana])
def test_both_webhooks_are_read(body) -> None:
    (one,) = received(body(alert()), FLEET, AT_S).alerts
    assert (one.service, one.name, one.status, one.tier, one.reason) == ("ranker", "SlowAnswers", "firing", "act", "p95 is 2 s")
    assert AT_S - 120 < one.starts_s < AT_S


@pytest.mark.parametrize(
    ("labels", "service", "says"),
    [
        ({"service": "zebra"}, "zebra", ""),
        ({"service": "web", "slotune_service": "zebra"}, "zebra", ""),
        ({"service": "nobody"}, "", "names the service 'nobody'"),
        ({"service": ""}, "", "names no service"),
        ({"alertname": "SlotuneLoopDead"}, "", "slotune's own"),
    ],
)
def test_whom_it_is_about(labels, service, says) -> None:
    found = received(alertmanager(alert(**labels)), FLEET, AT_S)
    assert [a.service for a in found.alerts] == ([service] if service else [])
    assert says in "".join(found.ignored) and bool(says) == bool(found.ignored)


@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b"{}", b'{"alerts": 1}', b'{"alerts": [1]}', b"[" * 100_000, b'{"alerts": [' + b"{}," * 1000 + b"{}]}"])
def test_what_is_no_webhook_is_a_sentence(body) -> None:
    with pytest.raises(ConfigError) as raised:
        received(body, FLEET, AT_S)
    assert "\n" not in str(raised.value) and len(str(raised.value)) < 200


@pytest.mark.parametrize("odd", [{"labels": None}, {"labels": {"alertname": 7}}, {"startsAt": "soon"}, {"startsAt": None}, {"annotations": []}, {"status": 9},
                                 {"labels": {"service": "ranker", "alertname": "\x1b[31m" * 99}}, {"generatorURL": 3}])  # fmt: skip
def test_an_odd_alert_is_read_or_named(odd) -> None:
    found = received(alertmanager({**alert(), **odd}), FLEET, AT_S)
    assert len(found.alerts) + len(found.ignored) == 1
    for one in found.alerts:
        record(one)


def take(ledger: FakeLedger, at_s: float, *alerts: dict[str, Any]):
    found = received(alertmanager(*alerts), FLEET, at_s)
    return outside.take(ledger, FLEET, loads(TWO).detection, found.alerts, at_s)


def test_a_group_opens_one_incident_and_says_nothing_new_when_it_is_sent_again() -> None:
    ledger = FakeLedger()
    pods = [alert(pod=f"ranker-{n}") for n in range(5)]
    news, (incident_id,) = take(ledger, AT_S, *pods)
    kept = dict(ledger.records)
    assert news == 5 and len(open_incidents_of(ledger, AT_S)) == 1
    assert take(ledger, AT_S + 60, *pods) == (0, ()) and ledger.records == kept
    (incident,) = open_incidents_of(ledger, AT_S)
    assert (incident.id, incident.tier, incident.severity) == (incident_id, "act", "critical")
    assert incident.reason == "Alert SlowAnswers: p95 is 2 s" and len(incident.anomalies) == 1


def test_resolved_ends_it_in_whatever_order_it_comes_and_a_replay_wakes_nothing() -> None:
    fire, over = alert(), alert("resolved")
    for order in ([fire, over], [over, fire], [fire, over, fire, over, fire]):
        ledger = FakeLedger()
        for n, one in enumerate(order):
            take(ledger, AT_S + n, one)
        assert outside.anomalies(ledger, AT_S + 10) == []
    take(ledger, AT_S + 3600, alert(starts="2027-01-15T08:30:00Z"))
    assert len(outside.anomalies(ledger, AT_S + 3601)) == 1, "a later onset is another alert"


def test_what_nobody_repeats_is_forgotten_and_what_is_repeated_is_not() -> None:
    (one,) = received(alertmanager(alert()), FLEET, AT_S).alerts
    line = record(one)
    assert standing([line], AT_S + FORGOTTEN_S - 1) and not standing([line], AT_S + FORGOTTEN_S + 1)
    again = record(one.model_copy(update={"at_s": AT_S + FORGOTTEN_S / 2}))
    assert again.id != line.id and standing([again, line], AT_S + FORGOTTEN_S + 1)


def test_what_stands_since_it_was_told_is_no_newer_than_that() -> None:
    ledger = FakeLedger()
    take(ledger, AT_S, alert())
    (one,) = outside.anomalies(ledger, AT_S + 3600)
    assert (one.at_s, one.newest_s) == (AT_S + 3600, AT_S)


def test_a_warning_is_no_reason_to_act() -> None:
    ledger = FakeLedger()
    take(ledger, AT_S, alert(severity="warning"))
    assert [i.tier for i in open_incidents_of(ledger, AT_S)] == ["warn"]
    take(ledger, AT_S + 60, alert(severity="critical", pod="x"))
    assert [i.tier for i in open_incidents_of(ledger, AT_S + 60)] == ["act"], "the warning gives way"


def test_the_sweep_starts_a_run_for_it_holds_it_open_while_it_fires_and_closes_it_after() -> None:
    """The service itself looks fine all the time."""
    world, ledger = World(qps=lambda _t: 30.0), FakeLedger()
    loop = parts(world, ledger, KeptMails(), SERVICES)
    world.wait(700)

    def sweep():
        return watch.open_incidents(loop, watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now())))

    assert sweep() == []
    starts = "2027-01-15T08:10:00Z"
    found = received(alertmanager(alert(starts=starts)), tuple(loop.services.values()), world.now())
    _, (incident_id,) = outside.take(ledger, tuple(loop.services.values()), loop.settings.detection, found.alerts, world.now())
    world.wait(15)
    (request,) = sweep()
    assert (request.incident.id, request.attempt) == (incident_id, 1)
    world.wait(300)
    sweep()
    assert [i.id for i in open_incidents_of(ledger, world.now())] == [incident_id]
    over = received(alertmanager(alert("resolved", starts=starts)), tuple(loop.services.values()), world.now())
    outside.take(ledger, tuple(loop.services.values()), loop.settings.detection, over.alerts, world.now())
    world.wait(61)
    sweep()
    assert open_incidents_of(ledger, world.now()) == []
