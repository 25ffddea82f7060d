"""Anomalies to incidents: what belongs together, what closes, what gives way."""

from __future__ import annotations

from detection.anomalies import DetectionState, merge
from detection.incidents import open_incidents, symptom_of
from detection.model import Anomaly, Incident, Service, Slo
from detection.settings import DetectionSettings

SETTINGS = DetectionSettings(close_after_s=600)
SERVICES = [Service(name="s", serving="x", slo=Slo(p95_ms=100)), Service(name="t", serving="x", slo=Slo(p95_ms=100))]


def anomaly(signal: str = "p95_ms", tier: str = "act", at_s: float = 100.0, **other: object) -> Anomaly:
    values: dict[str, object] = {
        "id": f"{signal}{at_s}", "service": "s", "signal": signal, "tier": tier, "since_s": 40.0, "at_s": at_s,
        "observed": 1.0, "expected_low": None, "expected_high": None, "score": 2.0, "detectors": ("rules",),
        "reason": f"{signal} is odd",
    }  # fmt: skip
    return Anomaly.model_validate({**values, **other})


def opened(*anomalies: Anomaly) -> Incident:
    (incident,), _ = open_incidents(SERVICES, anomalies, [], 100.0, SETTINGS)
    return incident


def test_what_hurts_first_names_it() -> None:
    incident = opened(anomaly("qps", "warn"), anomaly("queue_depth"), anomaly("p95_ms"))
    assert (incident.symptom, incident.tier, incident.severity) == ("latency", "act", "critical")
    assert incident.signals == ("p95_ms", "queue_depth", "qps")
    assert incident.opened_at_s == 40.0


def test_the_same_again_is_the_same_incident() -> None:
    first = opened(anomaly())
    news, closed = open_incidents(
        SERVICES, [anomaly(at_s=160.0), anomaly("qps", "warn", 160.0)], [first], 160.0, SETTINGS
    )
    assert [i.id for i in news] == [first.id]
    assert not closed
    assert news[0].detected_at_s == 100.0
    assert news[0].signals == ("p95_ms", "qps")


def test_two_services_are_two_incidents() -> None:
    news, _ = open_incidents(SERVICES, [anomaly(), anomaly(service="t")], [], 100.0, SETTINGS)
    assert len({i.id for i in news}) == 2


def test_it_closes_after_a_while_only() -> None:
    first = opened(anomaly())
    assert open_incidents(SERVICES, [], [first], 100.0 + 599, SETTINGS) == ([], [])
    assert open_incidents(SERVICES, [], [first], 100.0 + 600, SETTINGS) == ([], [first.id])


def test_a_warning_gives_way_to_something_to_act_on() -> None:
    warned = opened(anomaly("qps", "warn"))
    news, closed = open_incidents(
        SERVICES, [anomaly(at_s=160.0), anomaly("qps", "warn", 160.0)], [warned], 160.0, SETTINGS
    )
    assert closed == [warned.id]
    assert [i.symptom for i in news] == ["latency"]


def test_a_warning_of_the_same_kind_grows() -> None:
    warned = opened(anomaly("p95_ms", "warn"))
    news, closed = open_incidents(SERVICES, [anomaly("p95_ms", "act", 160.0)], [warned], 160.0, SETTINGS)
    assert (news[0].id, news[0].tier, closed) == (warned.id, "act", [])


def test_idle_stands_alone_and_gives_way() -> None:
    low = anomaly("busy", "warn", observed=0.05, expected_low=0.1)
    assert symptom_of(low) == "idle"
    idle = opened(low)
    news, closed = open_incidents(SERVICES, [low, anomaly(at_s=160.0)], [idle], 160.0, SETTINGS)
    assert closed == [idle.id]
    assert [(i.symptom, i.signals) for i in news] == [("latency", ("p95_ms",))]


def test_a_slow_replica_is_its_own_symptom() -> None:
    assert opened(anomaly("p95_ms", "warn", replica="r1")).symptom == "slow_replica"


def test_an_unknown_service_opens_nothing() -> None:
    assert open_incidents(SERVICES, [anomaly(service="gone")], [], 100.0, SETTINGS) == ([], [])


def test_what_only_stands_without_new_votes_does_not_keep_it_open() -> None:
    first = opened(anomaly("qps", "warn"))
    assert open_incidents(SERVICES, [anomaly("qps", "warn", at_s=100.0)], [first], 700.0, SETTINGS) == ([], [first.id])


def test_a_kept_anomaly_fades_from_act_to_warn_to_gone() -> None:
    settings = DetectionSettings(keep_firing_for_s=300, joint_keep_firing_for_s=3600)
    seen = anomaly(detectors=("band", "pca_residual"), kinds=("vote", "joint"))
    rows = [(200.0, ["act"]), (500.0, ["warn"]), (3600.0, ["warn"]), (3800.0, [])]
    for at_s, tiers in rows:
        found, _ = merge([], at_s, settings, DetectionState(open={"k": seen}))
        assert [a.tier for a in found] == tiers, at_s
    ruled = anomaly(detectors=("rules", "pca_residual"), kinds=("rule", "joint"))
    assert merge([], 115.0, settings, DetectionState(open={"k": ruled}))[0] == []
