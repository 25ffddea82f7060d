"""From a Query to SQL: one text with bound parameters, for the standard library's SQLite driver and for SQLAlchemy."""

from __future__ import annotations

import json
from typing import Literal

from tuning.query import Query

COLUMNS = ("id", "kind", "phase", "service", "parent_id", "incident_id", "at_s", "body")
Dialect = Literal["sqlite", "postgresql"]
_COLUMN_OF = {
    "kinds": "kind",
    "services": "service",
    "incident_ids": "incident_id",
    "parent_ids": "parent_id",
    "ids": "id",
}
_WITHOUT = {
    "id": "NOT EXISTS (SELECT 1 FROM records AS other WHERE other.id = records.id || :suffix)",
    "incident_id": "NOT EXISTS (SELECT 1 FROM records AS other WHERE other.id = records.incident_id || :suffix)",
}
_NARROW = ("incident_ids", "parent_ids", "ids", "family")


def select(query: Query, dialect: Dialect) -> tuple[str, dict[str, object]]:
    """The statement, newest first, and its parameters. Its columns are COLUMNS."""
    values: dict[str, object] = {}
    where = [*_names(query, dialect, values), *_family(query, dialect, values)]
    narrow = any(getattr(query, name) is not None for name in _NARROW)
    if query.phase is not None:
        # a family has a few dozen records and a service few against all, a phase half of the table
        where.append(f"phase{_unindexed(narrow or query.services is not None)} = :phase")
        values["phase"] = query.phase
    for name, sign in (("since_s", ">="), ("until_s", "<=")):
        if getattr(query, name) is not None:
            where.append(f"at_s {sign} :{name}")
            values[name] = getattr(query, name)
    if query.holding is not None:
        where.append("instr(body, :holding) > 0" if dialect == "sqlite" else "strpos(body, :holding) > 0")
        values["holding"] = query.holding
    if query.without is not None:
        column, values["suffix"] = query.without
        where.append(_WITHOUT[column])
    columns = ", ".join(COLUMNS if query.bodies else (*COLUMNS[:-1], "'{}' AS body"))
    text = f"SELECT {columns} FROM records"  # noqa: S608 (only constants are put together; every value is bound)
    text += f" WHERE {' AND '.join(where)}" if where else ""
    text += " ORDER BY at_s DESC, seq DESC" if query.order == "time" else " ORDER BY seq DESC"
    if query.limit is not None:
        text += " LIMIT :limit"
        values["limit"] = query.limit
    return text, values


def written(after: int, kinds: tuple[str, ...], size: int, dialect: Dialect) -> tuple[str, dict[str, object]]:
    """The statement for the next `size` records of these kinds in the order of writing, and its parameters.

    Its columns are seq and COLUMNS. The intent of a lever is left out: it repeats its whole plan.
    """
    values: dict[str, object] = {"after": after, "size": size}
    one_of = _one_of("kinds", kinds, dialect, values)
    text = (
        f"SELECT seq, {', '.join(COLUMNS)} FROM records WHERE seq > :after AND kind{_unindexed(True)} {one_of} "  # noqa: S608 (only constants are put together; every value is bound)
        "AND (phase = 'result' OR kind = 'roll_back') ORDER BY seq LIMIT :size"
    )
    return text, values


def _names(query: Query, dialect: Dialect, values: dict[str, object]) -> list[str]:
    narrow = any(getattr(query, name) is not None for name in _NARROW)
    found = []
    for name, column in _COLUMN_OF.items():
        wanted = getattr(query, name)
        if wanted is not None:
            loose = narrow and name in ("kinds", "services")
            found.append(f"{column}{_unindexed(loose)} {_one_of(name, wanted, dialect, values)}")
    return found


def _family(query: Query, dialect: Dialect, values: dict[str, object]) -> list[str]:
    if query.family is None:
        return []
    one_of = _one_of("family", query.family, dialect, values)
    return [f"(id {one_of} OR parent_id {one_of})"]


def _unindexed(loose: bool) -> str:
    """Turns a column into an expression, so that the search starts from a few records and not from a whole kind."""
    return " || ''" if loose else ""


def _one_of(name: str, wanted: tuple[str, ...], dialect: Dialect, values: dict[str, object]) -> str:
    if len(wanted) == 1:
        values[name] = wanted[0]
        return f"= :{name}"
    if dialect == "sqlite":  # a statement may hold some 32,000 parameters, a JSON text any number of names
        values[name] = json.dumps(wanted)
        return f"IN (SELECT value FROM json_each(:{name}))"  # noqa: S608 (names of our own)
    values[name] = list(wanted)
    return f"= ANY(CAST(:{name} AS text[]))"
