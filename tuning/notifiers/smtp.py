"""Mails the report over SMTP: HTML with a plain-text alternative and the plot inline.

The connection's extra follows Airflow's SMTP connection: disable_ssl (default true unless the port is 465),
disable_tls (default false: STARTTLS is used when the server offers it, and demanded when there is a password),
timeout (seconds).
"""

from __future__ import annotations

import smtplib
import ssl
from urllib.parse import urlsplit

from detection.errors import Permanent, Temporary
from tuning.mail import Mail
from tuning.notifiers.settings import MailSettings
from tuning.ports import Connection, Connections


class SmtpNotifier:
    """Raises Temporary when the server cannot be reached or says "later" (4xx), Permanent when it says no (5xx)."""

    name = "smtp"

    def __init__(self, settings: MailSettings, connections: Connections) -> None:
        self._settings = settings
        self._connections = connections

    def send(self, mail: Mail) -> None:
        if not self._settings.to:
            return
        message = mail.to_email(sender=self._settings.sender, to=self._settings.to)
        connection = self._connections.get(self._settings.connection)
        where = f"the mail server of connection {connection.name!r}"
        try:
            with _open(connection) as client:
                client.send_message(message)
        except smtplib.SMTPRecipientsRefused as error:
            codes = {code for code, _ in error.recipients.values()}
            if any(400 <= code < 500 for code in codes):
                raise Temporary(f"{where} asks to try the recipients later", delay_s=300) from error
            raise Permanent(f"{where} refuses all recipients; check mail.to") from error
        except smtplib.SMTPAuthenticationError as error:
            raise Permanent(f"{where} refuses the login; check the connection's login and password") from error
        except smtplib.SMTPNotSupportedError as error:
            raise Permanent(f"{where} lacks what the connection asks for: {error}") from error
        except smtplib.SMTPResponseException as error:
            text = f"{where} answered {error.smtp_code}"
            if 500 <= error.smtp_code < 600:
                raise Permanent(text) from error
            # 4xx is "later"; what is no reply code at all (smtplib says -1) is a broken server, not a refusal.
            raise Temporary(text, delay_s=300) from error
        except ssl.SSLError as error:
            raise Permanent(f"{where} and slotune cannot agree on TLS ({error.reason})") from error
        except (OSError, smtplib.SMTPException) as error:
            raise Temporary(f"{where} gives no answer ({type(error).__name__})", delay_s=60) from error


def _open(connection: Connection) -> smtplib.SMTP:
    parts = urlsplit(connection.url)
    host, port = parts.hostname or "localhost", parts.port or 25
    timeout_s = float(str(connection.extra.get("timeout", 10)))
    implicit_tls = not _flag(connection, "disable_ssl", default=port != 465)
    client: smtplib.SMTP
    if implicit_tls:
        client = smtplib.SMTP_SSL(host, port, timeout=timeout_s, context=ssl.create_default_context())
    else:
        client = smtplib.SMTP(host, port, timeout=timeout_s)
    try:
        client.ehlo()
        if not implicit_tls and not _flag(connection, "disable_tls", default=False):
            _start_tls(client, needed=bool(connection.password))
        if connection.login and connection.password:
            client.login(connection.login, connection.password)
    except BaseException:
        client.close()
        raise
    return client


def _start_tls(client: smtplib.SMTP, *, needed: bool) -> None:
    if client.has_extn("starttls"):
        client.starttls(context=ssl.create_default_context())
        client.ehlo()
    elif needed:
        raise smtplib.SMTPNotSupportedError(
            "no STARTTLS, and a password is never sent in the clear unless extra.disable_tls is true"
        )


def _flag(connection: Connection, name: str, *, default: bool) -> bool:
    value = connection.extra.get(name)
    if value is None:
        return default
    return str(value).strip().lower() in ("1", "true", "yes", "on")
