"""Incidents as news: that one has opened, that it is over, and, for channels that show what is true now, all that is.

The messages are only kept here; the sweep sends them when its work is done (tuning.loop.tell.send_unsent), so that
an outage of the whole fleet goes out as one.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from detection.errors import SlotuneError
from detection.model import Incident, Mode, make_id
from tuning.attempt import value
from tuning.loop import post
from tuning.loop.parts import Parts
from tuning.mail import Mail
from tuning.policies.delivery import wants
from tuning.ports import Repeated
from tuning.query import Query
from tuning.report.notice_mail import notice_mail

_log = logging.getLogger(__name__)
INTERVALS = 4.0
"""So many sweeps may be missing before a repeated message ends by itself."""
LEAST_S = 900.0


def opened(parts: Parts, incidents: Iterable[Incident], at_s: float) -> None:
    """Keep the news of incidents to act on, of each once; which channels are told is their own setting."""
    if not any("incident" in channel.told for channel, _ in post.channels(parts)):
        return
    acts = {make_id(incident.id, "opened"): incident for incident in incidents if incident.tier == "act"}
    told = {record.id for record in parts.ledger.find(Query(ids=tuple(acts), bodies=False))} if acts else set()
    for mail_id, incident in acts.items():
        if mail_id not in told:
            post.keep(parts, opened_mail(parts, incident, at_s), at_s)


def closed(parts: Parts, incidents: Iterable[Incident], at_s: float) -> None:
    for incident in incidents:
        if incident.tier == "act":
            post.keep(parts, closed_mail(parts, incident, at_s), at_s)


def repeat(parts: Parts, incidents: Sequence[Incident], at_s: float) -> None:
    """Tell the channels that show what is true now: the incidents that are open, and those that have just ended."""
    takers = [(channel, n) for channel, n in post.channels(parts) if isinstance(n, Repeated)]
    if not takers:
        return
    mails = [opened_mail(parts, incident, at_s) for incident in incidents if incident.tier == "act"]
    mails += [closed_mail(parts, incident, closed_s) for incident, closed_s in _just_closed(parts, at_s)]
    for channel, notifier in takers:
        told = [mail for mail in mails if wants(channel, post.topic(parts, mail))]
        try:
            notifier.stand(told)
        except SlotuneError as error:
            _log.warning("%s: %s; the next sweep tells it everything anew", channel.name, error)
        except Exception:
            _log.exception("%s broke", channel.name)


def opened_mail(parts: Parts, incident: Incident, at_s: float) -> Mail:
    mail = notice_mail(
        make_id(incident.id, "opened"),
        f"Incident: {incident.service}: {_symptom(incident)}: {incident.reason}",
        [incident.reason, _mode(parts, incident.service)],
        at_s,
        event="incident",
        service=incident.service,
        urgent=incident.severity == "critical",
        tone="bad",
        url=parts.incident_url(incident.id),
    )
    return replace(_about(parts, mail, incident), ends_s=at_s + _lasts_s(parts))


def closed_mail(parts: Parts, incident: Incident, at_s: float) -> Mail:
    minutes = max(at_s - incident.opened_at_s, 0.0) / 60
    mail = notice_mail(
        make_id(incident.id, "over"),
        f"Over: {incident.service}: {_symptom(incident)}, after {minutes:.0f} minutes",
        [f"It was: {incident.reason}"],
        at_s,
        event="incident",
        service=incident.service,
        tone="good",
        url=parts.incident_url(incident.id),
    )
    return replace(_about(parts, mail, incident), over=True)


def _symptom(incident: Incident) -> str:
    return incident.symptom.replace("_", " ")


def _about(parts: Parts, mail: Mail, incident: Incident) -> Mail:
    service = parts.services.get(incident.service)
    labels = {**(service.labels if service is not None else {}), "symptom": incident.symptom}
    return replace(mail, about=incident.id, began_s=incident.opened_at_s, labels=labels)


_NEXT: Mapping[Mode, str] = {
    "observe": "slotune plans and changes nothing (mode observe).",
    "approve": "slotune looks for a change that cures it, and asks before it makes one.",
    "act": "slotune looks for a change that cures it.",
}


def _mode(parts: Parts, service: str) -> str:
    known = parts.services.get(service)
    return _NEXT[known.mode] if known is not None else ""


def _lasts_s(parts: Parts) -> float:
    return max(INTERVALS * parts.settings.schedule.watch_every_s, 60.0)


def _just_closed(parts: Parts, at_s: float) -> list[tuple[Incident, float]]:
    since_s = at_s - max(_lasts_s(parts), LEAST_S)
    rows = parts.ledger.find(Query(kinds=("open_incidents",), since_s=since_s))
    over = {str(row.incident_id): row.at_s for row in rows if row.body.get("closed")}
    kept = parts.ledger.find(Query(ids=tuple(over))) if over else ()
    return [(incident, over[incident.id]) for row in kept if (incident := value(row, Incident)) is not None]
