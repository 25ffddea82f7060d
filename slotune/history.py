"""What the ledger's records mean, in rows and sentences; plain values in, plain values out."""

from __future__ import annotations

import csv
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detection.errors import ConfigError
from tuning.formats import ms, point_minutes
from tuning.query import Query

if TYPE_CHECKING:
    from tuning.ledger.lines import Line, Reader

LEVER_KINDS = (
    "adjust_batch_size",
    "scale_replicas",
    "quantize_int8",
    "revert_release",
    "switch_variant",
    "limit_admission",
    "break_circuit",
    "restart_replica",
)
SUMMARY_KINDS = ("open_incidents", "choose_action", "guard", "verify_p95", "keep", "roll_back", "hold", *LEVER_KINDS)
EXPORT_COLUMNS = ("id", "kind", "phase", "service", "parent_id", "incident_id", "at_s", "body")
Row = dict[str, Any]


def incidents(reader: Reader, *, service: str | None, since_s: float | None, limit: int) -> list[Row]:
    """One row per incident, newest first."""
    opened: dict[str, Line] = {}
    services, wanted = None if service is None else (service,), 4 * limit
    while True:
        lines = reader.find(Query(kinds=("open_incidents",), services=services, since_s=since_s, limit=wanted))
        for line in lines:
            opened.setdefault(line.incident_id or line.id, line)
        if len(lines) < wanted or len(opened) >= limit:
            break
        wanted *= 4
        opened.clear()
    ids = tuple(opened)[:limit]
    of: dict[str, list[Line]] = defaultdict(list)
    for line in reversed(reader.find(Query(kinds=SUMMARY_KINDS, incident_ids=ids))):
        of[line.incident_id or line.id].append(line)
    return [incident_row(incident_id, of[incident_id]) for incident_id in ids]


def incident_row(incident_id: str, lines: Sequence[Line]) -> Row:
    bodies = [line.body for line in lines if line.kind == "open_incidents" and not line.body.get("closed")]
    first, body = (bodies[0], bodies[-1]) if bodies else ({}, {})
    closed = [line for line in lines if line.kind == "open_incidents" and line.body.get("closed")]
    plans = [line for line in lines if line.kind == "choose_action"]
    outcomes = [line.body for line in lines if line.kind == "verify_p95"]
    return {
        "id": incident_id,
        "service": lines[0].service if lines else "",
        "symptom": body.get("symptom", ""),
        "severity": body.get("severity", ""),
        "tier": body.get("tier", ""),
        "opened_at_s": first.get("opened_at_s", lines[0].at_s if lines else None),
        "detected_at_s": first.get("detected_at_s"),
        "closed_at_s": closed[-1].at_s if closed else None,
        "state": "closed" if closed else "open",
        "attempts": len(plans),
        "done": _done(lines, plans),
        "verdict": _verdict(outcomes[-1]) if outcomes else "",
        "reason": body.get("reason", ""),
    }


def _done(lines: Sequence[Line], plans: Sequence[Line]) -> str:
    if not plans:
        return "nothing yet"
    plan = plans[-1]
    text = option_text(plan.body.get("chosen"))
    if any(line.kind == "roll_back" for line in lines if line.at_s >= plan.at_s):
        return f"{text}, rolled back"
    if any(line.kind in LEVER_KINDS and line.phase == "result" for line in lines if line.at_s >= plan.at_s):
        return text
    guards = [line for line in lines if line.kind == "guard" and line.parent_id == plan.id]
    if guards:
        return f"{text}: refused ({guards[-1].body.get('guard')})"
    return text if text == "hold" else f"{text}: planned"


def _verdict(outcome: Mapping[str, Any]) -> str:
    known = outcome.get("resolved")
    resolved = "" if known is None else ", resolved" if known else ", not resolved"
    return f"{outcome.get('verdict', '?')}{resolved}"


def change_text(change: Mapping[str, Any]) -> str:
    """As tuning.model.Change.text, from JSON."""
    old, new = _mapping(change.get("old")), _mapping(change.get("new"))
    moved = [knob for knob in new if new[knob] != old.get(knob)] or list(new)
    return ", ".join(f"{knob} {old.get(knob, '?')} -> {new[knob]}" for knob in moved)


def option_text(option: object) -> str:
    return " and ".join(change_text(change) for change in _changes(option)) or "hold"


def changes_of(plan: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The changes of a plan's chosen option, from its JSON; () for a hold."""
    return _changes(plan.get("chosen"))


def _changes(option: object) -> Sequence[Mapping[str, Any]]:
    found = _mapping(option).get("changes")
    return [change for change in found if isinstance(change, Mapping)] if isinstance(found, list | tuple) else ()


def _mapping(value: object) -> Mapping[str, Any]:
    """What should be an object of a record's body; a damaged one is empty."""
    return value if isinstance(value, Mapping) else {}


def story(reader: Reader, wanted: str) -> Sequence[Line]:
    """The records of an incident, oldest first; of a plan or another record: itself and what follows from it."""
    of_incident = reader.find(Query(incident_ids=(wanted,)))
    if of_incident:
        return of_incident[::-1]
    found: dict[str, Line] = {}
    following: tuple[str, ...] = (wanted,)
    while following:
        lines = [line for line in reader.find(Query(family=following)) if line.id not in found]
        found |= {line.id: line for line in lines}
        following = tuple(line.id for line in lines if line.id not in following)
    return sorted(found.values(), key=lambda line: line.at_s)


def as_json(line: Line) -> Row:
    return {name: getattr(line, name) for name in EXPORT_COLUMNS}


BROKEN = (AttributeError, TypeError, ValueError, LookupError)
"""What comes of a record whose body is not what its kind says: it is shown as it is, and the others beside it."""


def sentence(kind: str, phase: str, body: Mapping[str, Any]) -> str:
    """One record in one line, also one that cannot be made sense of."""
    try:
        return _sentence(kind, phase, body)
    except BROKEN:
        return f"cannot be read: {json.dumps(body)[:200]}"


def _sentence(kind: str, phase: str, body: Mapping[str, Any]) -> str:
    reason = str(body.get("reason") or "")
    if body.get("closed"):
        return f"closed: {reason}"
    if kind == "open_incidents":
        return f"{body.get('symptom')} ({body.get('severity')}): {reason}"
    if "chosen" in body:
        return f"{option_text(body['chosen'])}. {reason[:1].upper()}{reason[1:]}".strip()
    if kind == "guard":
        return f"refused by {body.get('guard')}: {reason}"
    if "peers" in body:
        return f"{body.get('replica')} first, beside {len(body['peers'])} unchanged"
    if "lever" in body and "after" in body:
        text = change_text({"old": body.get("before"), "new": body.get("after")})
        return f"{text} ({'applied' if body.get('applied') else 'not applied'}) {reason}".strip()
    if kind == "verify_p95":
        return f"{_verdict(body)}: {_milliseconds(body)}{reason}"
    if "next" in body:
        return f"{reason} Next: {body['next']}."
    if kind == "email_report":
        return "report made" if phase == "intent" else _handed_over(body)
    if kind == "begun":
        return f"attempt {body.get('attempt')}, by {body.get('run')}"
    if kind == "stress":
        begun = f"load of up to {body.get('bound_per_s'):g}/s at {body.get('address')}" if phase == "intent" else ""
        return begun or str(body.get("summary") or body.get("ended"))
    return reason or json.dumps(body)[:200]


def _handed_over(body: Mapping[str, Any]) -> str:
    note = str(body.get("note") or "")
    if "channel" not in body:
        return f"report handed over. {note}".strip()
    said = note if body.get("done") else f"try {body.get('try')} {note}".strip()
    return f"{body['channel']}: {said}"


def _milliseconds(body: Mapping[str, Any]) -> str:
    before, after = body.get("p95_before_ms"), body.get("p95_after_ms")
    if not isinstance(before, int | float) or not isinstance(after, int | float):
        return ""
    return f"P95 {ms(before)} -> {ms(after)}, "


def in_force(reader: Reader, *, now_s: float, since_s: float) -> list[Row]:
    """Changes that are in force: every open one, and those that were kept since `since_s`; newest first.

    What IS counts, as far as the ledger knows: of the kept changes of a lever only the one whose values were left there
    last, and none where somebody else has set another value since.
    """
    rows = [
        change_row(line.plan, line.state, line.opened_at_s, now_s, expires_at_s=line.expires_at_s)
        for line in reader.open_lines()
    ]
    open_plans = {row["plan_id"] for row in rows}
    made = reader.find(Query(kinds=(*LEVER_KINDS, "roll_back"), phase="result", since_s=since_s, order="written"))
    last = {plan: line for plan, line in _last_made(made).items() if plan not in open_plans}
    taken = _set_by_others(reader, last.values())
    for line in _kept(reader, last):
        receipt = last[str(line.parent_id)]
        if taken.get((receipt.service, str(receipt.body.get("lever"))), receipt.at_s) <= receipt.at_s:
            rows.append(change_row(line.body, "kept", line.at_s, now_s, expires_at_s=None))
    return sorted(rows, key=lambda row: -row["since_s"])


def _last_made(made: Sequence[Line]) -> dict[str, Line]:
    """By plan: the newest change of each lever of each service whose values are what was left there last. made: newest
    written first."""
    left: dict[tuple[str, str], object] = {}
    found: dict[tuple[str, str], Line] = {}
    for line in made:
        key = (line.service, str(line.body.get("lever")))
        if "after" not in line.body or not line.body.get("applied") or key in found:
            continue
        now = left.setdefault(key, line.body["after"])
        if line.kind in LEVER_KINDS and line.body.get("changed") and line.body["after"] == now:
            found[key] = line
    return {str(line.parent_id): line for line in found.values()}


def _kept(reader: Reader, plans: Mapping[str, Line]) -> list[Line]:
    """The intents of the plans that were kept for good: a keep follows from the plan (or from its verdict), and no
    roll-back, and it was not on lease."""
    wanted = tuple(plans)
    first = reader.find(Query(parent_ids=wanted, bodies=False))
    plan_of = {line.id: str(line.parent_id) for line in first}
    second = reader.find(Query(kinds=("keep",), parent_ids=tuple(line.id for line in first), bodies=False))
    kept = {str(line.parent_id) for line in first if line.kind == "keep"}
    kept |= {plan_of[str(line.parent_id)] for line in second}
    undone = {str(line.parent_id) for line in first if line.kind == "roll_back"}
    ids = tuple(line.id for line in first if line.phase == "intent" and line.kind in LEVER_KINDS)
    intents = [line for line in reader.find(Query(ids=ids)) if "chosen" in line.body]
    return [line for line in intents if line.parent_id in kept - undone and line.body.get("lease_s") is None]


def _set_by_others(reader: Reader, made: Iterable[Line]) -> dict[tuple[str, str], float]:
    """When slotune last saw another hand at a lever, by service and lever."""
    lines = list(made)
    if not lines:
        return {}
    since_s, services = min(line.at_s for line in lines), tuple({line.service for line in lines})
    found: dict[tuple[str, str], float] = {}
    seen = Query(kinds=("guard",), services=services, since_s=since_s, holding='"guard":"ownership:')
    for line in reader.find(seen):
        guard = str(line.body.get("guard"))
        if guard.startswith("ownership:"):
            found.setdefault((line.service, guard.removeprefix("ownership:")), line.at_s)
    return found


def change_row(plan: Mapping[str, Any], state: str, at_s: float, now_s: float, *, expires_at_s: float | None) -> Row:
    said, lost = (_mapping(plan.get("chosen")).get(name) for name in ("cost_per_hour", "quality_loss"))
    cost = float(said) if isinstance(said, int | float) else 0.0
    loss = float(lost) if isinstance(lost, int | float) else 0.0
    return {
        "plan_id": plan.get("id"),
        "incident_id": plan.get("incident_id"),
        "service": plan.get("service"),
        "change": option_text(plan.get("chosen")),
        "state": state,
        "since_s": at_s,
        "expires_at_s": expires_at_s,
        "cost_per_hour": cost,
        "cost_so_far": cost * max(0.0, now_s - at_s) / 3600.0,
        "quality": point_minutes(loss, max(0.0, now_s - at_s)) if loss > 0 and state != "kept" else "",
    }


def export(reader: Reader, to: Path, *, since_s: float | None) -> int:
    """Write records page by page; returns how many. Raises ConfigError for another ending or a path that cannot be."""
    writers = {".csv": _write_csv, ".parquet": _write_parquet}
    write = writers.get(to.suffix.lower())
    if write is None:
        raise ConfigError(f"{to.name!r} ends in neither .csv nor .parquet: the ending says what is written.")
    with _replaced(to) as temporary:
        return write(reader.pages(since_s=since_s), temporary)


@contextmanager
def _replaced(to: Path) -> Iterator[Path]:
    """A temporary file beside `to` that takes its place at the end: nobody ever sees half an export."""
    try:
        handle, name = tempfile.mkstemp(dir=to.parent, prefix=f".{to.name}.")
        os.close(handle)
    except OSError as error:
        raise ConfigError(f"{to} cannot be written: {error.strerror}.") from error
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        temporary.replace(to)
    except OSError as error:
        raise ConfigError(f"{to} cannot be written: {error.strerror}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write_csv(pages: Iterable[Sequence[Line]], to: Path) -> int:
    count = 0
    with to.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(EXPORT_COLUMNS)
        for page in pages:
            writer.writerows([cell(value) for value in _values(line)] for line in page)
            count += len(page)
    return count


def _values(line: Line) -> list[object]:
    row = as_json(line)
    return [*(row[name] for name in EXPORT_COLUMNS[:-1]), json.dumps(row["body"])]


_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠")
"""How a cell begins that a spreadsheet runs; some read the full-width forms as the plain ones."""


def cell(value: object) -> object:
    """A cell as it is safe in a spreadsheet."""
    # A spreadsheet runs what begins like a formula; an apostrophe makes it text.
    return f"'{value}" if isinstance(value, str) and value[:1] in _FORMULA else value


def _write_parquet(pages: Iterable[Sequence[Line]], to: Path) -> int:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ModuleNotFoundError as error:
        raise ConfigError("Parquet needs pyarrow: install it, or export to .csv.") from error
    kinds = [pa.field(name, pa.float64() if name == "at_s" else pa.string()) for name in EXPORT_COLUMNS]
    count = 0
    with pq.ParquetWriter(to, pa.schema(kinds)) as writer:
        for page in pages:
            columns = list(zip(*(_values(line) for line in page), strict=True))
            arrays = [pa.array(column, field.type) for column, field in zip(columns, kinds, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=pa.schema(kinds)))
            count += len(page)
    return count
