"""Writes the subject to the log of the task."""

from __future__ import annotations

import logging

from tuning.mail import Mail

_log = logging.getLogger(__name__)


class LogNotifier:
    def __init__(self, name: str = "log") -> None:
        self.name = name

    def send(self, mail: Mail) -> None:
        """Never fails."""
        _log.info("%s (%s)", mail.subject, mail.id)

    def probe(self) -> str:
        return "writes to the log"
