"""What people told slotune: pause, resume, hand back now, yes or no to a plan, this was (not) a real problem.
Written down, and final.

An order is a record of the ledger like any other, so that who said what, when and why can be read for ever. Pure:
`in_force` folds the records; who obeys them asks `tuning.guards.stopped`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal

from detection.model import Value, make_id
from tuning.model import Record

ORDER = "order"
"""The kind of these records. It is no step of the flow: nobody but a person makes one."""
What = Literal["pause", "resume", "hand_back", "label", "approve", "reject"]
Direction = Literal["both", "up", "down"]


class Order(Value):
    """One thing that a person said.

    service: "" means all. lever: "" means all of the service. direction: which moves a pause forbids. about: the plan
    to hand back or to answer, or the incident to label. label: of an incident. until_s: when a pause ends by itself
    (None: never).
    """

    id: str
    what: What
    who: str
    why: str = ""
    at_s: float
    service: str = ""
    lever: str = ""
    direction: Direction = "both"
    about: str = ""
    label: Literal["", "real", "not_real"] = ""
    until_s: float | None = None


def order(what: What, who: str, at_s: float, **told: object) -> Order:
    """An order with its id; the same order given twice in one second is one."""
    parts = sorted((name, str(value)) for name, value in told.items())
    return Order.model_validate({"id": make_id(ORDER, what, who, round(at_s), parts), "what": what, "who": who,
                                 "at_s": at_s, **told})  # fmt: skip


def order_record(given: Order) -> Record:
    """The order as a line of the ledger; it follows from what it is about."""
    return Record(
        id=given.id,
        kind=ORDER,
        service=given.service,
        parent_id=given.about or None,
        at_s=given.at_s,
        body=given.model_dump(mode="json"),
    )


def orders_of(records: Iterable[Record]) -> list[Order]:
    """The orders among records, oldest first; one that cannot be read is none.

    records: newest written first. What was said last is what was written last: a clock that steps back turns nothing
    around.
    """
    found = []
    for record in reversed(tuple(records)):
        if record.kind != ORDER:
            continue
        known = {name: value for name, value in record.body.items() if name in Order.model_fields}
        try:
            found.append(Order.model_validate(known))
        except ValueError:
            continue
    return found


def pauses(orders: Iterable[Order], at_s: float) -> tuple[Order, ...]:
    """The pauses in force at `at_s`: the last word about a service and lever counts, until it ends by itself. Orders
    are in the order in which they were given; one from after `at_s` was given before the clock stepped back.

    A resume of a whole service ends the pauses of its levers; a resume of everything ends all of them.
    """
    standing: dict[tuple[str, str], Order] = {}
    for given in orders:
        if given.what not in ("pause", "resume"):
            continue
        if given.what == "pause":
            standing[given.service, given.lever] = given
            continue
        for service, lever in list(standing):
            if given.service in ("", service) and given.lever in ("", lever):
                del standing[service, lever]
    return tuple(p for p in standing.values() if p.until_s is None or p.until_s > at_s)


def paused(
    orders: Iterable[Order], service: str, moves: Mapping[str, Direction], at_s: float
) -> Order | None:
    """The pause that forbids a move of these levers; None where nobody forbade it.

    moves: by lever, which way it goes; "both" where that cannot be told, and then any pause of the lever forbids it.
    """
    for pause in pauses(orders, at_s):
        if pause.service not in ("", service):
            continue
        for lever, direction in moves.items():
            if pause.lever in ("", lever) and ("both" in (pause.direction, direction) or pause.direction == direction):
                return pause
    return None


def to_hand_back(orders: Iterable[Order], plan_id: str) -> Order | None:
    """The newest order to hand this plan's change back."""
    found = [o for o in orders if o.what == "hand_back" and o.about == plan_id]
    return found[-1] if found else None


def labels(orders: Iterable[Order]) -> dict[str, Literal["", "real", "not_real"]]:
    """What people said of each incident; the newest word counts."""
    return {given.about: given.label for given in orders if given.what == "label" and given.about}


def answer_to(orders: Iterable[Order], plan_id: str) -> Order | None:
    """The first yes or no to a plan: a word that came later changes nothing any more."""
    return next((o for o in orders if o.what in ("approve", "reject") and o.about == plan_id), None)
