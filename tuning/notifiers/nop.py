"""Tells nobody: for replays and for services whose reports are read from the ledger."""

from __future__ import annotations

from tuning.model import Report


class NopNotifier:
    name = "nop"

    def send(self, report: Report) -> None:
        """Does nothing, successfully."""
