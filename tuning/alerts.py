"""Alerts of others: what Alertmanager's and Grafana's webhooks say, which service it is about, and what still holds.

Both send {"groupKey", "alerts": [{"status", "labels", "annotations", "startsAt", "endsAt", "generatorURL",
"fingerprint"}]} (https://prometheus.io/docs/alerting/latest/configuration/#webhook_config, Grafana's webhook contact
point adds fields of its own). Every alert is a record of the ledger with an id of what it says, so that the same
webhook sent twice says nothing new. Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from detection.errors import ConfigError
from detection.model import Anomaly, Service, Tier, Value, make_id
from detection.outside_text import printable
from detection.signals import SIGNALS
from tuning.model import Record

ALERT = "alert"
"""The kind of these records. They are no step of the flow: somebody else made them."""
MOST_ALERTS = 1000
MOST_LETTERS = 300
AGAIN_S = 6 * 3600.0
"""A notification that is repeated is written down again after so long: it says that the alert still fires."""
FORGOTTEN_S = 24 * 3600.0
"""An alert that nobody repeats or resolves for so long has lost its sender. Alertmanager repeats every four hours."""
NAMES = ("slotune_service", "service")
OWN = "Slotune"
"""How slotune's own alerts begin: what it says itself is no evidence for it."""
MINOR = ("warning", "info", "none", "low", "notice", "minor")
"""Severities that are only a warning; every other, and none at all, is something to act on."""


class OutsideAlert(Value):
    """One alert about one service. group: the sender's key. starts_s: its onset. at_s: when it was received."""

    service: str
    group: str
    name: str
    status: Literal["firing", "resolved"]
    starts_s: float
    at_s: float
    fingerprint: str
    severity: str = ""
    reason: str = ""
    url: str = ""
    signal: str = ALERT

    @property
    def key(self) -> str:
        """The same for the firing and the resolving of one alert."""
        return make_id(ALERT, self.service, self.fingerprint, round(self.starts_s, 3))

    @property
    def tier(self) -> Tier:
        return "warn" if self.severity.lower() in MINOR else "act"


@dataclass(frozen=True)
class Received:
    """What a webhook said: the alerts about services, and a sentence about each that is about none."""

    alerts: tuple[OutsideAlert, ...]
    ignored: tuple[str, ...]


def received(body: bytes, services: Sequence[Service], at_s: float) -> Received:
    """A webhook's body. Raises ConfigError, in a sentence, where it is none."""
    try:
        data = json.loads(body)
    except (ValueError, RecursionError):
        raise ConfigError("the body is no JSON: send what Alertmanager's or Grafana's webhook sends") from None
    alerts = data.get("alerts") if isinstance(data, dict) else None
    if not isinstance(alerts, list) or not all(isinstance(alert, dict) for alert in alerts):
        raise ConfigError("the body has no list `alerts`: send what Alertmanager's or Grafana's webhook sends")
    if len(alerts) > MOST_ALERTS:
        raise ConfigError(f"the body holds {len(alerts)} alerts; at most {MOST_ALERTS} are taken at once")
    group = str(data.get("groupKey") or data.get("receiver") or "")[:1000]
    found: list[OutsideAlert] = []
    ignored: list[str] = []
    for alert in alerts:
        try:
            found.append(_one(alert, group, services, at_s))
        except ConfigError as error:
            ignored.append(str(error))
    return Received(tuple(found), tuple(dict.fromkeys(ignored)))


def record(alert: OutsideAlert) -> Record:
    """The alert as a line of the ledger. That it is resolved is said once, that it fires once in AGAIN_S."""
    again = int(alert.at_s // AGAIN_S) if alert.status == "firing" else 0
    record_id = make_id(alert.key, alert.status, again)
    body = alert.model_dump(mode="json")
    return Record(id=record_id, kind=ALERT, service=alert.service, at_s=alert.at_s, body=body)


def standing(records: Iterable[Record], at_s: float) -> list[OutsideAlert]:
    """The alerts that fire at `at_s`: those that were not resolved and not forgotten. The order of the records, and how
    often each is there, changes nothing."""
    newest: dict[str, OutsideAlert] = {}
    over: set[str] = set()
    for line in records:
        known = {name: value for name, value in line.body.items() if name in OutsideAlert.model_fields}
        try:
            alert = OutsideAlert.model_validate(known)
        except ValueError:
            continue
        if alert.status == "resolved":
            over.add(alert.key)
        elif alert.key not in newest or newest[alert.key].at_s < alert.at_s:
            newest[alert.key] = alert
    fresh = [a for key, a in newest.items() if key not in over and abs(at_s - a.at_s) < FORGOTTEN_S]
    return sorted(fresh, key=lambda alert: (alert.service, alert.starts_s, alert.key))


def anomalies(alerts: Iterable[OutsideAlert], at_s: float) -> list[Anomaly]:
    """The evidence at `at_s`: one anomaly for each group and signal of a service, whatever number of alerts it has."""
    groups: dict[tuple[str, str, str], list[OutsideAlert]] = {}
    for alert in alerts:
        groups.setdefault((alert.service, alert.group, alert.signal), []).append(alert)
    return [_anomaly(service, signal, group, at_s) for (service, _, signal), group in sorted(groups.items())]


def _anomaly(service: str, signal: str, alerts: Sequence[OutsideAlert], at_s: float) -> Anomaly:
    names = ", ".join(dict.fromkeys(alert.name for alert in alerts))
    reasons = dict.fromkeys(alert.reason for alert in alerts if alert.reason)
    why = f": {'; '.join(list(reasons)[:2])}" if reasons else ""
    onset_s = min(alert.starts_s for alert in alerts)
    return Anomaly(
        id=make_id("anomaly", ALERT, service, signal, onset_s, names),
        service=service,
        signal=signal,
        tier="act" if any(alert.tier == "act" for alert in alerts) else "warn",
        since_s=min(onset_s, at_s),
        at_s=at_s,
        observed=None,
        expected_low=None,
        expected_high=None,
        score=1.0,
        detectors=(ALERT,),
        reason=f"Alert {names}{why}",
        symptom="" if signal in SIGNALS else ALERT,
        beyond_s=min(at_s, max(alert.at_s for alert in alerts)),
    )


def _one(alert: Mapping[str, Any], group: str, services: Sequence[Service], at_s: float) -> OutsideAlert:
    labels, told = _texts(alert.get("labels")), _texts(alert.get("annotations"))
    name = printable(labels.get("alertname") or "without a name", 80)
    if name.startswith(OWN):
        raise ConfigError(f"the alert {name} is slotune's own: it is no evidence")
    status = "resolved" if alert.get("status") == "resolved" else "firing"
    signal = labels.get("slotune_signal", "")
    starts_s = _time_s(alert.get("startsAt"))
    same = [str(alert.get("fingerprint") or ""), *(f"{k}={v}" for k, v in sorted(labels.items()))]
    return OutsideAlert(
        service=_service(labels, name, services),
        group=group,
        name=name,
        status=status,
        starts_s=starts_s if starts_s is not None else at_s // AGAIN_S * AGAIN_S,
        at_s=at_s,
        fingerprint=make_id(*same),
        severity=labels.get("severity", "")[:40],
        reason=printable(told.get("summary") or told.get("description") or told.get("message") or "", MOST_LETTERS),
        url=str(alert.get("generatorURL") or "")[:1000],
        signal=signal if signal in SIGNALS else ALERT,
    )


def _service(labels: Mapping[str, str], name: str, services: Sequence[Service]) -> str:
    """The service that an alert is about: the one it names, else the only one whose selectors it carries."""
    known = {service.name for service in services}
    for label in NAMES:
        if labels.get(label) in known:
            return labels[label]
    fits = [s.name for s in services if s.selectors and all(labels.get(k) == v for k, v in s.selectors.items())]
    if len(fits) == 1:
        return fits[0]
    if fits:
        some = ", ".join(fits[:3])
        raise ConfigError(f"the alert {name} fits {len(fits)} services ({some}): add the label slotune_service")
    shown = next((printable(labels[label], 60) for label in NAMES if label in labels), "")
    says = f"names the service {shown!r}, which services.yaml has not" if shown else "names no service of services.yaml"
    raise ConfigError(f"the alert {name} {says}: add the label slotune_service with a service's name")


def _texts(value: object) -> dict[str, str]:
    pairs = value.items() if isinstance(value, Mapping) else ()
    return {str(k): v for k, v in pairs if isinstance(v, str)}


def _time_s(value: object) -> float | None:
    """Epoch seconds of RFC 3339; None where there is no such time (Go writes the year 1 for none)."""
    try:
        found = datetime.fromisoformat(str(value)).timestamp()
    except (ValueError, OverflowError):
        return None
    return found if found > 0 else None
