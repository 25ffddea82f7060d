"""Writes the subject to the log of the task."""

from __future__ import annotations

import logging

from tuning.mail import Mail

_log = logging.getLogger(__name__)


class LogNotifier:
    name = "log"

    def send(self, mail: Mail) -> None:
        """Never fails."""
        _log.info("%s (%s)", mail.subject, mail.id)
