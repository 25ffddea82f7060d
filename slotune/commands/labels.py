"""`slotune label`: whether an incident was a real problem. `slotune labels`: what is known of all of them."""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from detection.errors import ConfigError
from slotune.commands.history import AS_JSON, DAY_S, LEDGER, _print_table, clean, utc
from slotune.person import person

if TYPE_CHECKING:
    from tuning.labels import Label

COLUMNS = (
    "incident", "service", "symptom", "tier", "opened_at_s",
    "label", "strength", "by", "who", "at_s", "why", "disputed",
)  # fmt: skip
WORDS: dict[str, Literal["real", "not_real"]] = {"real": "real", "not-real": "not_real", "not_real": "not_real"}
CALLED = {"real": "a real problem", "not_real": "no real problem"}


def register(app: typer.Typer) -> None:
    """Adds the subcommands."""
    app.command("label")(label)
    app.command("labels")(labels)


def label(
    incident: Annotated[str, typer.Argument(help="The incident's id, as mails and `slotune incidents` show it.")],
    was: Annotated[str, typer.Argument(help="real, or not-real.")],
    why: Annotated[str, typer.Option("--why", help="A reason, for whoever reads it later.")] = "",
    ledger: str = LEDGER,
) -> None:
    """Say whether an incident was a real problem. Reviews count it, and detection learns from it."""
    from slotune.compose import open_ledger
    from slotune.places import ledger_url
    from tuning.orders import ORDER, order, order_record, orders_of
    from tuning.query import Query

    said = WORDS.get(was.strip().lower())
    if said is None:
        raise ConfigError(f"an incident was real or not-real, not '{clean(was)}'")
    opened, now_s = open_ledger(ledger or ledger_url()), time.time()
    lines = opened.find(Query(kinds=("open_incidents",), incident_ids=(incident,), limit=1))
    if not lines:
        raise ConfigError(f"the ledger holds no incident '{clean(incident)}': slotune incidents lists what there is")
    service = lines[0].service
    about = opened.find(Query(kinds=(ORDER,), parent_ids=(incident,), order="written"))
    earlier = [given for given in orders_of(about) if given.what == "label" and given.label]
    given = order("label", person(), now_s, service=service, about=incident, label=said, why=why[:500])
    opened.put(order_record(given))
    typer.echo(f"{service}: incident {incident} was {CALLED[said]}.{_but(earlier[-1:], said)}")


def _but(earlier: Sequence[Any], said: str) -> str:
    if not earlier or earlier[0].label == said:
        return ""
    one = earlier[0]
    who = f"{clean(one.who)} had called it {CALLED[one.label]} ({utc(one.at_s)} UTC)"
    return f" {who}: the newest word counts, both are kept."


def labels(
    service: Annotated[str, typer.Option("--service", help="Of this service only.")] = "",
    days: Annotated[float, typer.Option("--days", help="Of the last so many days only; 0: of all time.")] = 0.0,
    as_csv: Annotated[bool, typer.Option("--csv", help="CSV instead of a table.")] = False,
    as_json: bool = AS_JSON,
    ledger: str = LEDGER,
) -> None:
    """List which incidents were real problems: what people said, and what their end says where nobody did."""
    from slotune.commands.history import _reader
    from tuning.labels import labelled
    from tuning.model import Record
    from tuning.orders import ORDER, orders_of
    from tuning.past import KINDS, Past
    from tuning.query import Query

    if as_csv and as_json:
        raise ConfigError("--csv or --json, not both")
    reader = _reader(ledger)
    past = Past()
    for _, page in reader.written(0, KINDS):
        past.add(page)
    lines = reader.find(Query(kinds=(ORDER,), order="written"))
    orders = orders_of(
        Record(id=ln.id, kind=ORDER, service=ln.service, at_s=ln.at_s, body=dict(ln.body)) for ln in lines
    )
    since_s = time.time() - days * DAY_S if days > 0 else float("-inf")
    found = [one for one in labelled(past, orders) if one.service == (service or one.service)]
    rows = [_row(one) for one in found if one.opened_at_s >= since_s]
    if as_json:
        typer.echo(json.dumps(rows, indent=2, allow_nan=False))
    elif as_csv:
        typer.echo(_csv(rows), nl=False)
    else:
        _print(rows)
        for line in _learned(ledger):
            typer.echo(line)


def _learned(ledger: str) -> list[str]:
    """What the labels taught so far, or how many are missing; whether it is switched on says services.yaml."""
    from slotune.compose import open_ledger
    from slotune.places import ledger_url
    from tuning.loop.adapt import STRICTNESS, steps_of
    from tuning.loop.examples import STATE
    from tuning.query import Query

    opened = open_ledger(ledger or ledger_url())
    found = opened.get_blob(STATE)
    steps = steps_of(opened.find(Query(kinds=(STRICTNESS,), order="written")))
    return [
        found.decode(errors="replace") if found else "Nothing was learned from labels yet.",
        *(f"{clean(service)}: {mine[-1].reason}." for service, mine in sorted(steps.items())),
    ]


def _row(one: Label) -> dict[str, Any]:
    from tuning.labels import WHY

    last = one.said[-1] if one.said else None
    return {
        "incident": one.incident_id,
        "service": one.service,
        "symptom": one.symptom,
        "tier": one.tier,
        "opened_at_s": one.opened_at_s,
        "label": one.label,
        "strength": one.strength,
        "by": WHY[one.alarm.by],
        "who": last.who if last is not None else "",
        "at_s": last.at_s if last is not None else None,
        "why": last.why if last is not None else "",
        "disputed": one.disputed,
    }


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    from slotune.history import cell

    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows([cell(row[name]) for name in COLUMNS] for row in rows)
    return out.getvalue()


def _print(rows: Sequence[dict[str, Any]]) -> None:
    names = ("incident", "opened (UTC)", "service", "symptom", "label", "says who", "why")
    shown = {"real": "real", "not_real": "not real", "": "unknown"}
    cells = [
        (
            row["incident"],
            utc(row["opened_at_s"]),
            row["service"],
            f"{row['symptom']} ({row['tier']})",
            shown[row["label"]] + (", disputed" if row["disputed"] else ""),
            row["who"] or row["by"],
            row["why"],
        )
        for row in rows
    ]
    _print_table(names, cells, "No incidents.")
