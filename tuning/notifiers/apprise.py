"""Chat and paging through Apprise: Slack, Teams, PagerDuty, Opsgenie, Discord, Telegram, webhooks and many more.

The connection holds Apprise's address, which is itself the secret: as `apprise+slack://TokenA/TokenB/TokenC`, as the
password of a connection of type apprise, or as Airflow's Apprise provider keeps it (extra `config`: {"path": ...} or a
list of such). Nothing of it reaches a message or a log.
"""

from __future__ import annotations

import contextlib
import logging
import re
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlencode

from detection.errors import ConfigError, Permanent, Temporary
from tuning.channel_settings import ChannelSettings
from tuning.mail import Mail, readable
from tuning.ports import Connection, Connections

MOST_LETTERS = 1500
KINDS = {"good": "success", "bad": "failure", "quiet": "info"}
_STATUS = re.compile(r"error=(\d{3})\b")
_FINAL = frozenset({400, 401, 403, 404, 410})
_TALKATIVE = ("apprise", "urllib3")
"""urllib3 logs the paths that it asks for, and in a chat's webhook the path is the secret."""
_ONE_AT_A_TIME = threading.Lock()


class AppriseNotifier:
    """Raises Temporary where the service does not take the message now, Permanent where the address is none."""

    def __init__(self, channel: ChannelSettings, connections: Connections) -> None:
        self.name = channel.name
        self._channel, self._connections = channel, connections

    def send(self, mail: Mail) -> None:
        services = self._services()
        title = readable(mail.subject.removeprefix("[slotune] "))
        with _overheard() as statuses:
            done = services.notify(title=title, body=words(mail), notify_type=KINDS[mail.tone], body_format="text")
        if done:
            return
        told = f" (it answered {statuses[-1]})" if statuses else ""
        where = f"the service of connection {self._channel.connection!r} did not take the message{told}"
        if statuses and set(statuses) <= _FINAL:
            raise Permanent(f"{where}: check the connection's address and tokens")
        raise Temporary(where, delay_s=60)

    def probe(self) -> str:
        """Whether the address can be read; whether it is taken, only a message shows."""
        names = sorted({str(service.service_name) for service in self._services()})
        return f"the address is one of {', '.join(names)} (whether it is right, only a message shows: --send-test)"

    def _services(self) -> Any:
        try:
            import apprise
        except ImportError as error:
            raise Permanent("a channel by apprise needs the library: install slotune[apprise]") from error
        connection = self._connections.get(self._channel.connection or "")
        services = apprise.Apprise()
        # Apprise's own words for its time-outs: connecting, and reading.
        limits = {"cto": f"{self._channel.timeout_s:g}", "rto": f"{self._channel.timeout_s:g}"}
        with _overheard():
            for text in addresses(connection):
                mark = "&" if "?" in text else "?"
                if not services.add(f"{text}{mark}{urlencode(limits)}"):
                    raise Permanent(
                        f"the connection {connection.name!r} holds no address that Apprise knows: see its list of "
                        "services for how the address of yours is written"
                    )
        return services


def addresses(connection: Connection) -> list[str]:
    """Apprise's addresses of a connection. ConfigError, which repeats none of it, where there is none."""
    found = [connection.password] if connection.password and "://" in connection.password else []
    config = connection.extra.get("config")
    for one in config if isinstance(config, list) else [config]:
        path = one.get("path") if isinstance(one, Mapping) else one
        if isinstance(path, str) and "://" in path:
            found.append(path)
    if not found:
        raise ConfigError(
            f"the connection {connection.name!r} holds no address for Apprise: write "
            "apprise+slack://TokenA/TokenB/TokenC (or another of its addresses), or put the address into the password "
            "of a connection of type apprise"
        )
    return found


def words(mail: Mail) -> str:
    """A few lines and the address of the page, which is never cut off."""
    text = readable((mail.brief or mail.text).strip())
    most = MOST_LETTERS - len(mail.url)
    text = text if len(text) <= most else text[: most - 3] + "..."
    return f"{text}\n{mail.url}" if mail.url else text


@contextlib.contextmanager
def _overheard() -> Iterator[list[int]]:
    """The HTTP statuses that Apprise logs. Its own lines stay out of every log: they may hold the address, which is
    the secret, and answers that repeat it."""
    statuses: list[int] = []

    class Listener(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            statuses.extend(int(found) for found in _STATUS.findall(record.getMessage()))

    listener = Listener()
    with _ONE_AT_A_TIME, contextlib.ExitStack() as after:
        for name in _TALKATIVE:
            logger = logging.getLogger(name)
            after.callback(_restore, logger, logger.propagate, logger.handlers[:], logger.level)
            logger.propagate, logger.handlers = False, [listener]
            logger.setLevel(logging.WARNING)
        yield statuses


def _restore(logger: logging.Logger, propagate: bool, handlers: list[logging.Handler], level: int) -> None:
    logger.propagate, logger.handlers = propagate, handlers
    logger.setLevel(level)
