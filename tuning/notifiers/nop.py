"""Tells nobody: for replays and for services whose reports are read from the ledger."""

from __future__ import annotations

from tuning.mail import Mail


class NopNotifier:
    name = "nop"

    def send(self, mail: Mail) -> None:
        """Does nothing, successfully."""
