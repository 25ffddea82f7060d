"""A rehearsal for programs: JSON with every figure, and the incidents as rows."""

from __future__ import annotations

import dataclasses
from typing import Any

from slotune.rehearsal.result import Rehearsal
from slotune.rehearsal.words import summary

COLUMNS = (
    "settings", "service", "incident", "symptom", "cause", "start_s", "end_s", "how", "changes", "recorded_min",
    "rehearsed_min", "low", "high", "modelled", "off", "not_lent", "reason",
)  # fmt: skip


def document(found: Rehearsal) -> dict[str, Any]:
    """Everything but the curves and what only the caps count. Times are epoch seconds."""
    return {
        "settings": found.label,
        "summary": summary(found),
        "days": found.days,
        "saved_min": dataclasses.asdict(found.saved),
        "left_out": list(found.left_out),
        "services": [_service(service) for service in found.services],
    }


def _service(service: Any) -> dict[str, Any]:
    kept = {f.name: getattr(service, f.name) for f in dataclasses.fields(service) if f.name not in ("curves", "made")}
    values = {name: _plain(value) for name, value in kept.items()}
    return values | {"saved_min": dataclasses.asdict(service.saved)}


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: _plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return [_plain(item) for item in value] if isinstance(value, tuple) else value


def rows(found: Rehearsal) -> list[tuple[object, ...]]:
    """One row per incident, of COLUMNS."""
    return [
        (
            found.label, i.service, i.id, i.symptom, i.cause, i.start_s, i.end_s, i.how, "; ".join(i.changes),
            round(i.recorded_min, 3), round(i.rehearsed_min.value, 3), round(i.rehearsed_min.low, 3),
            round(i.rehearsed_min.high, 3), round(i.rehearsed_min.modelled, 4),
            "" if i.off is None else round(i.off, 4), "; ".join(i.not_lent), i.reason,
        )
        for i in found.incidents
    ]  # fmt: skip
