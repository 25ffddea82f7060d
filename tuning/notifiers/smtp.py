"""Mails the report over SMTP: HTML with a plain-text alternative and the plot inline.

Extra settings of the connection: see tuning.notifiers._smtp_client.
"""

from __future__ import annotations

from detection.errors import Permanent
from tuning.mail import Mail
from tuning.notifiers import _smtp_probe
from tuning.notifiers._smtp_client import conversation
from tuning.notifiers.settings import MailSettings
from tuning.ports import Connections


class SmtpNotifier:
    """Raises Temporary when the server cannot be reached or says "later" (4xx), Permanent when it says no (5xx)."""

    def __init__(self, settings: MailSettings, connections: Connections, name: str = "smtp") -> None:
        self.name = name
        self._settings = settings
        self._connections = connections

    def send(self, mail: Mail) -> None:
        if not self._settings.to:
            return
        try:
            message = mail.to_email(sender=self._settings.sender, to=self._settings.to)
        except (ValueError, TypeError, OverflowError) as error:
            raise Permanent(f"the mail {mail.id} cannot be written ({type(error).__name__})") from error
        with conversation(self._connections.get(self._settings.connection)) as client:
            client.send_message(message)

    def probe(self) -> str:
        """EHLO (with TLS and login as for a mail) and NOOP; nothing is sent."""
        if not self._settings.to:
            raise Permanent("nobody is named as a recipient: write `to`, or mail.to")
        _smtp_probe.probe(self._connections.get(self._settings.connection))
        return f"the server of {self._settings.connection} answers"
