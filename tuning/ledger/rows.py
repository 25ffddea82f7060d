"""Rows to values and back. A row that cannot be read is skipped and named; it never stops what reads the others.

A field that this program does not know was written by a newer one (a rolling upgrade): it stays in the record's body,
and a plan is read without it. A number that is none (NaN, infinity) is written as null: JSON has no other word for it,
and every reader has to be able to read it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

import pydantic
from sqlalchemy.engine import Row

from tuning.caps import Unproven
from tuning.guards import caps
from tuning.ledger.words import body_of, skipped
from tuning.model import OpenChange, Plan, Record, UnreadableChange


def record_of(row: Row[Any]) -> Record | None:
    """None, and a line in the log that names the record, where its body is no JSON object."""
    body = body_of(row.body, row.id, row.service)
    if body is None:
        return None
    # The row was validated when it was written: model_construct keeps a listing of thousands fast.
    return Record.model_construct(
        id=row.id,
        kind=row.kind,
        phase=row.phase,
        service=row.service,
        parent_id=row.parent_id,
        incident_id=row.incident_id,
        at_s=row.at_s,
        body=body,
    )


def open_change_of(row: Row[Any]) -> OpenChange | None:
    """None, and a line in the log that names the change, where its plan cannot be read."""
    found = change_of(row)
    if isinstance(found, OpenChange):
        return found
    skipped("open change", found.plan_id, found.service, found.reason)
    return None


def change_of(row: Row[Any]) -> OpenChange | UnreadableChange:
    """An open change, or what can be said of one whose plan cannot be read."""
    try:
        return OpenChange(
            plan_id=row.plan_id,
            service=row.service,
            incident_id=row.incident_id,
            state=row.state,
            plan=Plan.model_validate_json(row.plan, extra="ignore"),
            opened_at_s=row.opened_at_s,
            expires_at_s=row.expires_at_s,
            run=row.run,
        )
    except pydantic.ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        return UnreadableChange(
            plan_id=row.plan_id,
            service=row.service,
            incident_id=row.incident_id,
            state=row.state,
            opened_at_s=row.opened_at_s,
            reason=f"{'.'.join(map(str, first['loc']))}: {first['msg']}",
        )


def unproven_of(row: Row[Any]) -> Unproven:
    """What counts of a change that is not proven yet, also where its plan cannot be read."""
    if (change := open_change_of(row)) is not None:
        return caps.unproven_of(change)
    plan = json_object(row.plan)
    chosen = plan.get("chosen")
    changes = chosen.get("changes") if isinstance(chosen, dict) else None
    found = changes if isinstance(changes, list) else []
    levers = tuple(str(change["lever"]) for change in found if isinstance(change, dict) and "lever" in change)
    return Unproven(row.plan_id, row.service, levers, row.opened_at_s)


def json_object(text: str) -> Mapping[str, Any]:
    """The object that a JSON text holds; empty where it holds none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}


def clean(text: str | None) -> str | None:
    """A column's text as every database takes it: a lone surrogate or a NUL, which some do not, becomes "?"."""
    if text is None or (text.isascii() and "\0" not in text):
        return text
    return text.encode("utf-8", "replace").decode().replace("\0", "?")


def to_json(body: object) -> str:
    """JSON without NaN: a number that is none becomes null, so that every reader can read it."""
    try:
        return json.dumps(body, allow_nan=False, separators=(",", ":"))
    except ValueError:
        return json.dumps(_finite(body), allow_nan=False, separators=(",", ":"))


def _finite(value: object) -> object:
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
