"""Whether the mail server answers, without sending anything: EHLO (with TLS and login as for a mail) and NOOP."""

from __future__ import annotations

from detection.errors import Permanent
from detection.outside_text import printable
from tuning.notifiers._smtp_client import conversation
from tuning.ports import Connection


def probe(connection: Connection) -> str:
    """The server's words. Raises Temporary (no answer) or Permanent (it refuses the login, TLS, or NOOP)."""
    with conversation(connection) as client:
        code, words = client.noop()
    if code != 250:
        raise Permanent(f"the mail server of connection {connection.name!r} answered {code} to NOOP")
    return printable(words.decode("ascii", "replace"), 200)
