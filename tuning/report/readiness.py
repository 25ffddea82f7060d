"""Exit criteria: what has to be seen of a service before slotune may do more there by itself.

From observe to approve and act it is the alarms and the plans that have to be good, for nothing was changed yet; from
approve to act it is the changes that people said yes to. Pure, of the past's fold. The numbers are what a person can
still check by hand: a handful of incidents over at least a week, none of them forgiven by an average.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from detection.model import Mode, Service
from tuning.labels import judged_alarm
from tuning.past import Case, Try
from tuning.report.review import DAY_S, FALSE

WINDOW_S = 28 * DAY_S
WATCHED_S = 7 * DAY_S
LABELLED = 3
PLANNED = 3
APPROVED = 5
WORKED = 0.8


@dataclass(frozen=True)
class Criterion:
    """One thing to be seen. now, wanted: in words. met: None where too little was seen to tell."""

    name: str
    now: str
    wanted: str
    met: bool | None


@dataclass(frozen=True)
class Readiness:
    """mode: what the service is in. next: what it would be moved to; "" for one that acts already."""

    mode: Mode
    next: str
    criteria: tuple[Criterion, ...]

    @property
    def ready(self) -> bool:
        return bool(self.criteria) and all(one.met for one in self.criteria)


def readiness(
    service: Service,
    cases: Sequence[Case],
    tries: Sequence[Try],
    labels: Mapping[str, str],
    read: bool,
    now_s: float,
) -> Readiness:
    """Of the last four weeks. cases, tries: all of the service's incidents that count, and the plans for them.

    read: whether the last sweep had numbers of the service. labels: people's words by incident.
    """
    if service.mode == "act":
        return Readiness("act", "", ())
    late = [case for case in cases if case.opened_at_s >= now_s - WINDOW_S]
    mine = [one for one in tries if one.at_s >= now_s - WINDOW_S]
    shared = (
        Criterion("metrics", "readable" if read else "not readable", "readable in the last sweep", read),
        Criterion("levers", ", ".join(sorted(service.levers)) or "none", "at least one", bool(service.levers)),
        _watched(cases, now_s),
        _alarms(late, mine, labels),
    )
    return Readiness(service.mode, "act", (*shared, *(_approved if service.mode == "approve" else _planned)(mine)))


def _watched(cases: Sequence[Case], now_s: float) -> Criterion:
    first_s = min((case.opened_at_s for case in cases), default=None)
    days = None if first_s is None else (now_s - first_s) / DAY_S
    told = "no incident was seen yet" if days is None else f"{days:.1f} days since its first incident"
    wanted = f"{WATCHED_S / DAY_S:.0f} days"
    return Criterion("watched", told, wanted, None if days is None else days * DAY_S >= WATCHED_S)


def _alarms(cases: Sequence[Case], tries: Sequence[Try], labels: Mapping[str, str]) -> Criterion:
    of: dict[str, list[Try]] = {}
    for one in tries:
        of.setdefault(one.incident_id, []).append(one)
    judged = [a for case in cases if (a := judged_alarm(case, of.get(case.id, []), labels.get(case.id, ""))).known]
    false = sum(alarm.false for alarm in judged)
    told = f"{false} of {len(judged)} known incidents were false ({len(cases) - len(judged)} more are not known)"
    wanted = f"at least {LABELLED} known (say on their pages whether they were real), at most {FALSE.value:.0%} false"
    return Criterion("alarms", told, wanted, None if len(judged) < LABELLED else false <= FALSE.value * len(judged))


def _planned(tries: Sequence[Try]) -> Iterable[Criterion]:
    changes = [one for one in tries if one.levers]
    refused = sum(bool(one.refused) for one in changes)
    told = f"{len(changes)} plans would have changed something, {refused} of them refused by a guard"
    met = None if len(changes) < PLANNED else refused == 0
    yield Criterion("plans", told, f"at least {PLANNED}, none of them refused", met)


def _approved(tries: Sequence[Try]) -> Iterable[Criterion]:
    judged = [one for one in tries if one.made and one.verdict is not None]
    worked = sum(one.verdict is not None and one.verdict.verdict == "improved" for one in judged)
    undone = sum(one.undone for one in judged)
    few = len(judged) < APPROVED
    told, wanted = f"{worked} of {len(judged)} approved changes worked", f"at least {APPROVED}, {WORKED:.0%} of them"
    yield Criterion("changes", told, wanted, None if few else worked >= WORKED * len(judged))
    yield Criterion("rolled back", f"{undone} of {len(judged)}", "none in four weeks", None if few else undone == 0)
