"""Writes the subject to the log of the task."""

from __future__ import annotations

import logging

from detection.outside_text import printable
from tuning.mail import Mail

_log = logging.getLogger(__name__)
_LONGEST = 500


class LogNotifier:
    def __init__(self, name: str = "log") -> None:
        self.name = name

    def send(self, mail: Mail) -> None:
        """Never fails; what no terminal or file could take is written escaped."""
        _log.info("%s (%s)", printable(mail.subject, _LONGEST), mail.id)

    def probe(self) -> str:
        return "writes to the log"
