"""Writes the report's headline to the log of the task."""

from __future__ import annotations

import logging

from tuning.model import Report
from tuning.report.words import subject

_log = logging.getLogger(__name__)


class LogNotifier:
    name = "log"

    def send(self, report: Report) -> None:
        """Never fails."""
        _log.info("%s (incident %s)", subject(report), report.incident.id)
