"""Ways of telling people. One file each; the registry is sorted."""

from __future__ import annotations

from collections.abc import Callable

from detection.errors import ConfigError
from tuning.notifiers.log import LogNotifier
from tuning.notifiers.nop import NopNotifier
from tuning.notifiers.settings import MailSettings
from tuning.notifiers.smtp import SmtpNotifier
from tuning.ports import Connection, Connections, Notifier

REGISTRY: dict[str, Callable[[MailSettings, Connections], Notifier]] = {
    "log": lambda _settings, _connections: LogNotifier(),
    "nop": lambda _settings, _connections: NopNotifier(),
    "smtp": lambda settings, connections: SmtpNotifier(settings, connections),
}


def get(name: str) -> Callable[[MailSettings, Connections], Notifier]:
    if name not in REGISTRY:
        raise ConfigError(f"there is no notifier {name!r}; known: {', '.join(REGISTRY)}")
    return REGISTRY[name]


def probe(connection: Connection) -> str:
    """What the mail server of a connection says when it is greeted; nothing is sent. Raises Temporary or Permanent."""
    from tuning.notifiers import _smtp_probe

    return _smtp_probe.probe(connection)
