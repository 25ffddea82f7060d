"""Tells nobody: for replays and for services whose reports are read from the ledger."""

from __future__ import annotations

from tuning.mail import Mail


class NopNotifier:
    def __init__(self, name: str = "nop") -> None:
        self.name = name

    def send(self, mail: Mail) -> None:
        """Does nothing, successfully."""

    def probe(self) -> str:
        return "tells nobody"
