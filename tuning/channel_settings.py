"""Who is told what, where and when: the section `notify` of services.yaml. Addresses and secrets are in connections."""

from __future__ import annotations

from typing import Literal, Self, get_args

from pydantic import Field, field_validator, model_validator

from tuning.guards.freeze import parse_freeze, zone
from tuning.mail import Event
from tuning.settings_base import ConnectionName, Section

EVENTS: tuple[Event, ...] = get_args(Event)
USUAL: tuple[Event, ...] = ("approval", "hold", "loop_failure", "review", "rollback", "verdict")
"""What is told where nobody says otherwise: what came of an incident, and what needs a person."""
STATES: tuple[Event, ...] = ("approval", "incident", "loop_failure")
"""What lasts and ends: the usual of a channel that shows what is true now."""
By = Literal["alertmanager", "apprise", "log", "smtp"]


class GroupSettings(Section):
    """When messages are told together: an outage of the whole fleet is one message and not three hundred."""

    more_than: int = Field(3, ge=1, le=1000)
    """So many messages within `within` are sent one by one; what comes beyond waits and is sent as one."""

    within_s: float = Field(600.0, ge=1)
    """The time over which messages are counted, and the shortest time between two that stand for many."""


class ChannelSettings(Section):
    """One way to reach people."""

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$")
    """Its name: in the ledger, in metrics and on the health page."""

    by: By
    """What carries it: apprise (Slack, Teams, PagerDuty, Opsgenie, webhooks ...), alertmanager, smtp, or log."""

    connection: ConnectionName | None = None
    """Connection that holds the address and the secrets; smtp: default mail.connection."""

    to: tuple[str, ...] = ()
    """Recipients, for smtp; default: mail.to."""

    events: tuple[Event, ...] = ()
    """What it is told: incident, change, verdict, hold, rollback, approval, loop_failure, review; with none, all but
    incident and change; by alertmanager incident, approval and loop_failure."""

    services: tuple[str, ...] = ()
    """Only these services; with none, all. What concerns no single service always comes."""

    labels: dict[str, str] = {}
    """Only services with all of these labels, such as {team: search}."""

    urgent: tuple[Event, ...] = ("approval", "loop_failure")
    """What is told in quiet hours as well, beside critical incidents and a roll-back that is not in force yet."""

    quiet: tuple[str, ...] = ()
    """Hours in which only what is urgent is told: "22:00-07:00", "Sat-Sun", "Fri 18:00-Mon 08:00"."""

    timezone: str = "UTC"
    """The zone of the quiet hours."""

    group: GroupSettings = GroupSettings()
    """When messages are told together; Alertmanager does that by itself."""

    give_up_after_s: float = Field(3 * 86_400.0, ge=60, le=7 * 86_400.0)
    """How long a message is tried; then it is given up, counted, and shown on the health page."""

    timeout_s: float = Field(10.0, gt=0, le=60)
    """How long one attempt to send may take (apprise and alertmanager; a mail server's is in its connection)."""

    @property
    def told(self) -> tuple[Event, ...]:
        """The events that this channel is told."""
        return self.events or (STATES if self.by == "alertmanager" else USUAL)

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if self.by in ("alertmanager", "apprise") and self.connection is None:
            raise ValueError(f"a channel by {self.by} needs a connection: write its name")
        if self.to and self.by != "smtp":
            raise ValueError("only a channel by smtp has recipients (to)")
        for address in self.to:
            if address.count("@") != 1 or any(c in address for c in " \r\n<>,"):
                raise ValueError(f"{address!r} is not a mail address")
        zone(self.timezone)
        return self

    @field_validator("quiet")
    @classmethod
    def _hours(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for text in value:
            try:
                parse_freeze(text)
            except ValueError as error:
                raise ValueError(str(error).replace("is not a freeze", "is no time of the week")) from error
        return value


class NotifySettings(Section):
    """Who is told what, where and when."""

    base_url: str | None = None
    """Address of the page, for links: of `slotune serve`, or of Airflow with /slotune; default: below Airflow's own."""

    channels: tuple[ChannelSettings, ...] = ()
    """Channels beside the log and, unless one of these is by smtp, the mail to mail.to."""

    @model_validator(mode="after")
    def _names(self) -> Self:
        names = [channel.name for channel in self.channels]
        if len(set(names)) != len(names):
            raise ValueError("two channels have one name: give each its own")
        if taken := sorted(set(names) & {"log", "smtp"}):
            raise ValueError(f"the name {taken[0]!r} is that of a channel that is there anyway: choose another")
        if self.base_url is not None and not self.base_url.startswith(("http://", "https://")):
            raise ValueError("base_url is an address such as https://airflow.example.com/slotune")
        return self


UNGROUPED = GroupSettings(more_than=1000, within_s=1.0)


def plain_channel(name: str, by: By) -> ChannelSettings:
    """A channel that nothing is said about: it is told the usual, one by one, at any hour."""
    return ChannelSettings(name=name, by=by, group=UNGROUPED, give_up_after_s=7 * 86_400.0)


def channels_of(notify: NotifySettings, mail_to: tuple[str, ...]) -> tuple[ChannelSettings, ...]:
    """Every channel that is in use: the log, the mail to mail.to, and those of the file."""
    by_mail = mail_to and not any(channel.by == "smtp" for channel in notify.channels)
    plain = (plain_channel("log", "log"), *((plain_channel("smtp", "smtp"),) if by_mail else ()))
    return (*plain, *notify.channels)
