"""Incidents as rows, and one incident as a story: what hurt, what was weighed, what was done, whether it helped."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from detection.model import Incident
from slotune import history
from slotune.views.reading import Reading
from tuning.cost import moved
from tuning.formats import change, ms, points, refused
from tuning.ledger.lines import Line
from tuning.model import Advice, Cost
from tuning.query import Query

Tone = Literal["good", "bad", "busy", "calm"]
TITLES = {
    "pull_metrics": "Metrics read",
    "detect_anomalies": "Anomalies",
    "open_incidents": "Incident",
    "choose_action": "Plan",
    "guard": "Guard",
    "adjust_batch_size": "Batch size",
    "scale_replicas": "Replicas",
    "quantize_int8": "INT8",
    "revert_release": "Revert of the release",
    "switch_variant": "Switch of the variant",
    "limit_admission": "Limit of what is taken in",
    "break_circuit": "Circuit of a route",
    "restart_replica": "Restart of a replica",
    "hold": "Hold",
    "settle": "Settle",
    "verify_p95": "Verdict",
    "keep": "Keep",
    "roll_back": "Roll back",
    "email_report": "Report",
    "begun": "Begun",
}


@dataclass(frozen=True)
class IncidentRow:
    """One incident in a list. state: open or closed. done: what was changed, verdict: and what came of it."""

    id: str
    service: str
    symptom: str
    severity: str
    tier: str
    opened_at_s: float | None
    closed_at_s: float | None
    state: str
    attempts: int
    done: str
    verdict: str
    reason: str

    @property
    def tone(self) -> Tone:
        if self.verdict.startswith("improved"):
            return "good"
        if self.state == "open":
            return "busy" if self.tier == "warn" else "bad"
        return "calm"


@dataclass(frozen=True)
class Step:
    """One record of the story, in words."""

    at_s: float
    kind: str
    title: str
    text: str
    tone: Tone
    intent: bool = False


@dataclass(frozen=True)
class OptionRow:
    """One option that was weighed. predicted: P95 with its interval, in words; "?" where no model could tell.
    quality: what it costs those who ask (points, or requests that are refused), in words."""

    text: str
    predicted: str
    cost_per_hour: float
    quality: str
    delay_s: float
    risk: float
    chosen: bool
    reason: str


@dataclass(frozen=True)
class AttemptView:
    """One plan and its fate. verdict: improved, unchanged, worse, inconclusive, or "" before one was reached.
    cost: of requests before and after, in words. advice: what a person could do, where no change was proven. beside:
    what a learned planner that only watches would have chosen."""

    number: int
    plan_id: str
    at_s: float
    mode: str
    cause: str
    evidence: tuple[str, ...]
    reason: str
    options: tuple[OptionRow, ...]
    split_ms: tuple[tuple[str, float], ...]
    verdict: str
    resolved: bool | None
    effect: str
    before_ms: float | None
    after_ms: float | None
    verdict_reason: str
    refusal: str
    cost: str = ""
    advice: tuple[str, ...] = ()
    beside: str = ""


@dataclass(frozen=True)
class IncidentPage:
    """Everything about one incident. timeline: (epoch seconds, P95 in ms) of the newest report, () before one."""

    row: IncidentRow
    steps: tuple[Step, ...]
    attempts: tuple[AttemptView, ...]
    anomalies: tuple[tuple[str, str], ...]
    slo_p95_ms: float | None
    timeline: tuple[tuple[float, float], ...]
    events: tuple[tuple[float, str], ...]
    emulated: bool


def rows(
    reading: Reading, *, service: str | None = None, since_s: float | None = None, limit: int = 50
) -> list[IncidentRow]:
    """The newest incidents first."""
    found = history.incidents(reading.reader, service=service, since_s=since_s, limit=limit)
    return [_row(row) for row in found]


def _row(row: Mapping[str, Any]) -> IncidentRow:
    names = IncidentRow.__dataclass_fields__
    return IncidentRow(**{name: row[name] for name in names})


def open_rows(reading: Reading) -> dict[str, Incident]:
    """The newest open incident of each service: act before warn."""
    return reading.memory.of_ledger("open", reading.reader, reading.now_s, lambda: _open_rows(reading))


def _open_rows(reading: Reading) -> dict[str, Incident]:
    unclosed = Query(kinds=("open_incidents",), without=("incident_id", ":closed"))
    newest: dict[str, Incident] = {}
    for line in reversed(reading.reader.find(unclosed)):
        incident = _incident(line.body)
        if incident is None:
            continue
        known = newest.get(incident.service)
        if known is None or known.tier == "warn" or incident.tier == "act":
            newest[incident.service] = incident
    return newest


def _incident(body: Mapping[str, Any]) -> Incident | None:
    known = {name: value for name, value in body.items() if name in Incident.model_fields}
    try:
        return Incident.model_validate(known | {"anomalies": ()})
    except ValueError:
        return None


def page(reading: Reading, incident_id: str) -> IncidentPage | None:
    """The story of one incident; None where the ledger holds none of that id."""
    lines = list(reading.reader.find(Query(incident_ids=(incident_id,))))[::-1]
    if not any(line.kind == "open_incidents" for line in lines):
        return None
    row = _row(history.incident_row(incident_id, lines))
    body = next((line.body for line in reversed(lines) if "anomalies" in line.body), {})
    reports = [line.body for line in lines if line.kind == "email_report" and line.phase == "intent"]
    report = reports[-1] if reports else {}
    service = reading.services.get(row.service)
    slo = report.get("slo_p95_ms") or (service.slo.main.limit_ms if service else None)
    return IncidentPage(
        row=row,
        steps=tuple(_step(line) for line in _told_once(lines)),
        attempts=tuple(_attempts(lines)),
        anomalies=_pairs(body.get("anomalies"), lambda a: (str(a.get("signal", "")), str(a.get("reason", "")))),
        slo_p95_ms=_number(slo),
        timeline=_pairs(report.get("timeline"), lambda point: (float(point[0]), float(point[1]))),
        events=_pairs(report.get("events"), lambda event: (float(event[0]), str(event[1]))),
        emulated=bool(report.get("emulated")),
    )


P = TypeVar("P")


def _pairs(found: object, read: Callable[[Any], P]) -> tuple[P, ...]:
    """The items of a list in a record's body; those that cannot be read are left out."""
    kept: list[P] = []
    for item in found if isinstance(found, list | tuple) else ():
        with suppress(*history.BROKEN):
            kept.append(read(item))
    return tuple(kept)


def _number(found: object) -> float | None:
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _told_once(lines: Sequence[Line]) -> Iterable[Line]:
    """Without the words of each channel about a report whose end says the same in one line."""
    told = {line.parent_id for line in lines if _hands_over(line) and "channel" not in line.body}
    return (line for line in lines if not (_hands_over(line) and line.parent_id in told and "channel" in line.body))


def _hands_over(line: Line) -> bool:
    return line.kind == "email_report" and line.phase == "result"


def _step(line: Line) -> Step:
    intent = line.phase == "intent"
    # The intent repeats the plan; here only what it is going to do matters.
    planned = intent and "chosen" in line.body
    text = history.option_text(line.body["chosen"]) if planned else history.sentence(line.kind, line.phase, line.body)
    return Step(line.at_s, line.kind, TITLES.get(line.kind, line.kind), text, _tone(line), intent)


def _tone(line: Line) -> Tone:
    body = line.body
    if line.kind == "verify_p95":
        return "good" if body.get("verdict") == "improved" else "bad"
    if line.kind == "roll_back" or body.get("applied") is False:
        return "bad"
    if line.kind == "keep" or body.get("closed"):
        return "good"
    return "busy" if line.phase == "intent" else "calm"


def _attempts(lines: Sequence[Line]) -> Iterable[AttemptView]:
    for line in lines:
        if line.kind != "choose_action" or "chosen" not in line.body:
            continue
        plan_id = str(line.body.get("id", line.id))
        mine = [other for other in lines if other.parent_id == plan_id]
        verdicts = [other.body for other in mine if other.kind == "verify_p95"]
        refusals = [other.body for other in mine if other.kind == "guard"]
        with suppress(*history.BROKEN):  # a damaged plan stands among the steps, as it is
            yield _attempt(line, verdicts[-1] if verdicts else {}, refusals[-1] if refusals else {})


def _attempt(line: Line, verdict: Mapping[str, Any], refusal: Mapping[str, Any]) -> AttemptView:
    plan = line.body
    diagnosis = plan.get("diagnosis") or {}
    parts = (("queue", "queue_ms"), ("batch wait", "batch_wait_ms"), ("service", "service_ms"))
    effect = (verdict.get("effect") or {}).get("value")
    guard = f"{refusal.get('guard')}: {refusal.get('reason')}" if refusal else ""
    return AttemptView(
        number=int(plan.get("attempt") or 1),
        plan_id=str(plan.get("id", line.id)),
        at_s=line.at_s,
        mode=str(plan.get("mode", "")),
        cause=str(diagnosis.get("cause", "unknown")).replace("_", " "),
        evidence=tuple(map(str, diagnosis.get("evidence") or ())),
        reason=str(plan.get("reason") or ""),
        beside=str(plan.get("beside") or ""),
        options=tuple(_options(plan)),
        split_ms=_pairs(diagnosis.get("stages"), lambda pair: (str(pair[0]), float(pair[1])))
        or tuple((name, float(v)) for name, key in parts if isinstance(v := diagnosis.get(key), int | float)),
        verdict=str(verdict.get("verdict", "")),
        resolved=known if isinstance(known := verdict.get("resolved"), bool) else None,
        effect=change(effect) if isinstance(effect, int | float) else "",
        before_ms=_number(verdict.get("p95_before_ms")),
        after_ms=_number(verdict.get("p95_after_ms")),
        verdict_reason=str(verdict.get("reason", "")),
        refusal=guard,
        advice=_pairs(_advice(plan, diagnosis, verdict), _sentence),
        cost=moved(_cost(verdict.get("cost_before")), _cost(verdict.get("cost_after"))),
    )


def _advice(plan: Mapping[str, Any], diagnosis: Mapping[str, Any], verdict: Mapping[str, Any]) -> object:
    """What a person could do, where nothing was changed or nothing was proven."""
    changed = (plan.get("chosen") or {}).get("changes")
    return diagnosis.get("advice") if not changed or verdict.get("verdict") == "inconclusive" else None


def _sentence(found: Any) -> str:
    return Advice.model_validate(found).sentence


def _cost(found: object) -> Cost | None:
    return Cost.model_validate(found) if isinstance(found, Mapping) else None


def _price(option: Mapping[str, Any]) -> str:
    loss = float(option.get("quality_loss") or 0.0)
    share = ((option.get("refusal") or {}).get("share") or {}).get("value")
    return points(loss) if loss else refused(float(share)) if share is not None else ""


def _options(plan: Mapping[str, Any]) -> Iterable[OptionRow]:
    for option, chosen in [(plan.get("chosen") or {}, True), *((o, False) for o in plan.get("rejected") or ())]:
        predicted = option.get("predicted_p95_ms") or {}
        low, high, value = (predicted.get(name) for name in ("low", "high", "value"))
        text = "?" if value is None else ms(value)
        if low is not None and high is not None:
            text += f" [{ms(low)} to {ms(high)}]"
        yield OptionRow(
            text=history.option_text(option),
            predicted=text,
            cost_per_hour=float(option.get("cost_per_hour") or 0.0),
            quality=_price(option),
            delay_s=float(option.get("effect_delay_s") or 0.0),
            risk=float(option.get("risk") or 0.0),
            chosen=chosen,
            reason=str(option.get("reason") or ""),
        )
