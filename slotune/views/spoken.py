"""What people told slotune: pauses in force, and the latest word about each incident."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from slotune.views.reading import Reading
from tuning.model import Record
from tuning.orders import ORDER, Order, labels, orders_of, pauses
from tuning.query import Query


@dataclass(frozen=True)
class Spoken:
    """pauses: in force now. labels: by incident, "real" or "not_real". said: every order, newest first."""

    pauses: tuple[Order, ...]
    labels: Mapping[str, str]
    said: tuple[Order, ...]

    def about(self, service: str) -> tuple[Order, ...]:
        """The pauses that hold for a service."""
        return tuple(pause for pause in self.pauses if pause.service in ("", service))


def spoken(reading: Reading) -> Spoken:
    """All that people said so far."""
    orders, said = reading.memory.of_ledger("orders", reading.reader, reading.now_s, lambda: _orders(reading))
    return Spoken(pauses(orders, reading.now_s), said, tuple(reversed(orders)))


def _orders(reading: Reading) -> tuple[list[Order], dict[str, str]]:
    lines = reading.reader.find(Query(kinds=(ORDER,), order="written"))
    orders = orders_of(
        Record(id=ln.id, kind=ORDER, service=ln.service, at_s=ln.at_s, body=dict(ln.body)) for ln in lines
    )
    return orders, dict(labels(orders))
