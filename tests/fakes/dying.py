"""A ledger whose process dies, for what comes after it."""

from __future__ import annotations

from tests.fakes.ledger import FakeLedger
from tuning.model import Record


class Dying:
    """A ledger whose process dies at one of its writes, once. at: the number of the write, counted from the plan on."""

    def __init__(self, ledger: FakeLedger, at: int) -> None:
        self._ledger, self._at, self.count = ledger, at, 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)

    def _step(self, begins: bool = False) -> None:
        if self.count or begins:
            self.count += 1
            if self.count == self._at:
                raise SystemExit("killed")

    def put(self, record: Record) -> bool:
        self._step(record.kind == "choose_action")
        new = self._ledger.put(record)
        self._step()
        return new

    def open_change(self, *args: object, **kwargs: object) -> None:
        self._step()
        self._ledger.open_change(*args, **kwargs)  # type: ignore[arg-type]
        self._step()

    def update_change(self, *args: object, **kwargs: object) -> None:
        self._step()
        self._ledger.update_change(*args, **kwargs)  # type: ignore[arg-type]
        self._step()
