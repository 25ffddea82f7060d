"""Whether the mail server answers, without sending anything: EHLO (with TLS and login as for a mail) and NOOP."""

from __future__ import annotations

import smtplib

from detection.errors import Permanent, Temporary
from tuning.notifiers.smtp import _open
from tuning.ports import Connection


def probe(connection: Connection) -> str:
    """The server's words. Raises Temporary (no answer) or Permanent (it refuses the login, TLS, or NOOP)."""
    where = f"the mail server of connection {connection.name!r}"
    try:
        with _open(connection) as client:
            code, words = client.noop()
    except smtplib.SMTPAuthenticationError as error:
        raise Permanent(f"{where} refuses the login; check the connection's login and password") from error
    except smtplib.SMTPNotSupportedError as error:
        raise Permanent(f"{where} lacks what the connection asks for: {error}") from error
    except (OSError, smtplib.SMTPException) as error:
        raise Temporary(f"{where} gives no answer ({type(error).__name__})") from error
    if code != 250:
        raise Permanent(f"{where} answered {code} to NOOP")
    return words.decode("ascii", "replace")
