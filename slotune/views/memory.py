"""What a process that is asked again and again remembers, so that a question reads only what was written since.

Nothing here is a second truth: it is thrown away with the process, and what it holds follows from the ledger alone.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, TypeVar

from tuning.ledger.lines import Reader
from tuning.past import KINDS, Past

V = TypeVar("V")
OVERLAP = 1_000
"""Records that are read again: a transaction that began earlier may commit, with a lower number, after a later one."""
FRESH_S = 15.0
"""How long an answer about an unchanged ledger is kept: as long as such a transaction can take to commit."""


class Memory:
    """Threads share it. of: one remembered value per name. of_ledger: the same for what follows from the records."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[object, Any]] = {}
        self._all, self._past, self._number = Past(), Past(), 0
        self._read: tuple[Reader, int, float] | None = None
        self._folding = threading.Lock()
        self._warming: threading.Thread | None = None

    def of(self, name: str, key: object, make: Callable[[], V]) -> V:
        """make's value, made again when `key` is another one than the last time."""
        known = self._known.get(name)
        if known is not None and (known[0] is key or known[0] == key):
            value: V = known[1]
            return value
        value = make()
        self._known[name] = (key, value)
        return value

    def of_ledger(self, name: str, reader: Reader, now_s: float, make: Callable[[], V]) -> V:
        """make's value, made again when anything was written since, or after FRESH_S."""
        return self.of(name, (reader, reader.newest(), now_s // FRESH_S), make)

    def past(self, reader: Reader, now_s: float) -> Past:
        """All incidents and what was tried on them, as of now; waits for whoever is reading them already.

        The same object as long as nothing was written: what is made of it can be remembered by it.
        """
        with self._folding:
            key = (reader, reader.newest(), now_s // FRESH_S)
            if self._read != key:
                if self._read is None or self._read[0] is not reader:
                    self._all, self._number = Past(), 0
                for number, lines in reader.written(max(0, self._number - OVERLAP), KINDS):
                    self._all.add(lines)
                    self._number = max(self._number, number)
                self._read, self._past = key, Past(dict(self._all.incidents), dict(self._all.tries))
            return self._past

    def past_within(self, reader: Reader, now_s: float, seconds: float) -> Past | None:
        """The past, where it can be read in so many seconds; else None, and it is read on in the background."""
        if self._warming is None or not self._warming.is_alive():
            self._warming = threading.Thread(target=_quietly, args=(self.past, reader, now_s), daemon=True)
            self._warming.start()
        self._warming.join(seconds)
        return None if self._warming.is_alive() else self.past(reader, now_s)


def _quietly(read: Callable[[Reader, float], object], reader: Reader, now_s: float) -> None:
    """Reads ahead for whoever asks next, who is told what is wrong; here nobody would be."""
    from tuning.errors import LedgerUnavailable

    try:
        read(reader, now_s)
    except LedgerUnavailable:
        return
