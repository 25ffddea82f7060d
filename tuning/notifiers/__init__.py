"""Ways of telling people. One file each; the registry is sorted."""

from __future__ import annotations

from collections.abc import Callable

from detection.errors import ConfigError
from tuning.channel_settings import ChannelSettings
from tuning.notifiers.alertmanager import AlertmanagerNotifier
from tuning.notifiers.apprise import AppriseNotifier
from tuning.notifiers.log import LogNotifier
from tuning.notifiers.nop import NopNotifier
from tuning.notifiers.settings import MailSettings
from tuning.notifiers.smtp import SmtpNotifier
from tuning.ports import Connections, Notifier

Make = Callable[[ChannelSettings, MailSettings, Connections], Notifier]

REGISTRY: dict[str, Make] = {
    "alertmanager": lambda channel, _mail, connections: AlertmanagerNotifier(channel, connections),
    "apprise": lambda channel, _mail, connections: AppriseNotifier(channel, connections),
    "log": lambda channel, _mail, _connections: LogNotifier(channel.name),
    "nop": lambda channel, _mail, _connections: NopNotifier(channel.name),
    "smtp": lambda channel, mail, connections: SmtpNotifier(_of_channel(mail, channel), connections, channel.name),
}


def _of_channel(mail: MailSettings, channel: ChannelSettings) -> MailSettings:
    """The section `mail` with what the channel says otherwise."""
    given = {"to": channel.to, "connection": channel.connection}
    return mail.model_copy(update={name: value for name, value in given.items() if value})


def get(name: str) -> Make:
    if name not in REGISTRY:
        raise ConfigError(f"there is no notifier {name!r}; known: {', '.join(REGISTRY)}")
    return REGISTRY[name]
