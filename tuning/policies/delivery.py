"""Who is told a message, and when it goes out on a channel: alone, together with others, later, or never. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from tuning.channel_settings import ChannelSettings
from tuning.guards.freeze import frozen_until, parse_freeze, zone
from tuning.mail import Event
from tuning.policies.outbox import Try, next_try

MOST_AT_ONCE = 50
"""So many messages go out one by one in one go; a channel that takes its time for each must not hold up a sweep."""


@dataclass(frozen=True)
class Topic:
    """What decides who is told: the event, the service ("" for none in particular) and its labels, and the urgency."""

    event: Event
    service: str = ""
    labels: Mapping[str, str] | None = None
    urgent: bool = False


class Waiting(NamedTuple):
    """A message that a channel has not taken yet. at_s: when it was written."""

    id: str
    at_s: float
    urgent: bool
    tries: tuple[Try, ...] = ()


class Recent(NamedTuple):
    """What a channel was told within its group's time: how many messages, and when several went as one (None: not)."""

    messages: int = 0
    group_s: float | None = None


@dataclass(frozen=True)
class Sending:
    """What to do with the messages that wait: each with the number of the try. given_up: they are too old."""

    singles: tuple[tuple[str, int], ...] = ()
    together: tuple[tuple[str, int], ...] = ()
    given_up: tuple[str, ...] = ()


def wants(channel: ChannelSettings, topic: Topic) -> bool:
    """Whether a channel is told of this at all."""
    if topic.event not in channel.told:
        return False
    if not topic.service:
        return True
    if channel.services and topic.service not in channel.services:
        return False
    labels = topic.labels or {}
    return all(labels.get(name) == value for name, value in channel.labels.items())


def presses(channel: ChannelSettings, topic: Topic) -> bool:
    """Whether it is told in quiet hours as well."""
    return topic.urgent or topic.event in channel.urgent


def quiet_until_s(channel: ChannelSettings, at_s: float) -> float | None:
    """When the quiet hours that hold at `at_s` end; None where none hold."""
    if not channel.quiet:
        return None
    found = frozen_until(at_s, [parse_freeze(text) for text in channel.quiet], zone(channel.timezone))
    return found[1] if found is not None else None


def sending(channel: ChannelSettings, waiting: Sequence[Waiting], recent: Recent, at_s: float) -> Sending:
    """What goes out now, oldest first. What is not named waits on."""
    old = tuple(one.id for one in waiting if abs(at_s - one.at_s) > channel.give_up_after_s)
    quiet = quiet_until_s(channel, at_s) is not None
    ready: list[tuple[Waiting, int]] = []
    for one in sorted(waiting, key=lambda one: (one.at_s, one.id)):
        number = next_try(one.tries, at_s)
        if one.id not in old and number is not None and (one.urgent or not quiet):
            ready.append((one, number))
    numbered = tuple((one.id, number) for one, number in ready)
    if not ready or recent.messages + len(ready) <= channel.group.more_than:
        return Sending(singles=numbered[:MOST_AT_ONCE], given_up=old)
    again_s = (recent.group_s if recent.group_s is not None else -channel.group.within_s) + channel.group.within_s
    if again_s > at_s and not any(one.urgent for one, _ in ready):
        return Sending(given_up=old)
    return Sending(together=numbered, given_up=old)
