"""Who is told, and when, as tables."""

from __future__ import annotations

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from tuning.channel_settings import ChannelSettings, GroupSettings
from tuning.policies.delivery import MOST_AT_ONCE, Recent, Topic, Waiting, presses, quiet_until_s, sending, wants
from tuning.policies.outbox import Try

NOON_S = datetime(2026, 3, 4, 12, 0, tzinfo=ZoneInfo("Europe/Berlin")).timestamp()
NIGHT_S = NOON_S + 11.5 * 3600


def channel(**kwargs) -> ChannelSettings:
    return ChannelSettings(**{"name": "c", "by": "log", **kwargs})


@pytest.mark.parametrize(
    ("settings", "topic", "told"),
    [
        ({}, Topic("verdict", "a"), True),
        ({}, Topic("incident", "a"), False),  # unless it is asked for
        ({"events": ("incident",)}, Topic("incident", "a"), True),
        ({"services": ("a",)}, Topic("hold", "b"), False),
        ({"services": ("a",)}, Topic("hold", "a"), True),
        ({"services": ("a",)}, Topic("loop_failure"), True),  # concerns everybody
        ({"labels": {"team": "search"}}, Topic("hold", "a", {"team": "search", "x": "y"}), True),
        ({"labels": {"team": "search"}}, Topic("hold", "a", {"team": "ads"}), False),
        ({"labels": {"team": "search"}}, Topic("hold", "a", {}), False),
        ({"labels": {"team": "s", "tier": "1"}}, Topic("hold", "a", {"team": "s"}), False),
    ],
)
def test_who_is_told(settings, topic, told) -> None:
    assert wants(channel(**settings), topic) is told


def test_what_is_urgent() -> None:
    one = channel(urgent=("approval",))
    assert presses(one, Topic("approval")) and presses(one, Topic("hold", urgent=True))
    assert not presses(one, Topic("hold")) and not presses(one, Topic("loop_failure"))


def test_quiet_hours_end_where_the_clock_on_the_wall_says() -> None:
    night = channel(quiet=("22:00-07:00",), timezone="Europe/Berlin")
    assert quiet_until_s(night, NOON_S) is None
    assert quiet_until_s(night, NIGHT_S) == NOON_S + 19 * 3600
    assert quiet_until_s(channel(), NIGHT_S) is None


def waits(n: int, at_s: float, **kwargs) -> list[Waiting]:
    return [Waiting(f"m{i}", at_s - 10 + i * 1e-3, False)._replace(**kwargs) for i in range(n)]


GROUPED = channel(group=GroupSettings(more_than=3, within_s=600))


@pytest.mark.parametrize(
    ("count", "recent", "singles", "together"),
    [
        (1, Recent(), 1, 0),
        (3, Recent(), 3, 0),
        (4, Recent(), 0, 4),  # an outage is one message
        (300, Recent(), 0, 300),
        (1, Recent(2), 1, 0),
        (1, Recent(3), 0, 1),
        (5, Recent(300, NOON_S - 60), 0, 0),  # the next one goes when the time is over
        (5, Recent(300, NOON_S - 599), 0, 0),
        (5, Recent(300, NOON_S - 600), 0, 5),
    ],
)
def test_what_goes_alone_and_what_together(count, recent, singles, together) -> None:
    found = sending(GROUPED, waits(count, NOON_S), recent, NOON_S)
    assert (len(found.singles), len(found.together), found.given_up) == (singles, together, ())


def test_what_is_urgent_waits_for_no_group() -> None:
    some = [*waits(4, NOON_S), Waiting("now", NOON_S, True)]
    assert len(sending(GROUPED, some, Recent(300, NOON_S - 1), NOON_S).together) == 5


def test_quiet_hours_hold_what_is_not_urgent() -> None:
    night = channel(quiet=("22:00-07:00",), timezone="Europe/Berlin")
    some = [Waiting("later", NIGHT_S - 5, False), Waiting("now", NIGHT_S, True)]
    assert sending(night, some, Recent(), NIGHT_S).singles == (("now", 1),)
    assert len(sending(night, some, Recent(), NIGHT_S + 8 * 3600).singles) == 2


def test_what_is_too_old_is_given_up_and_a_try_is_not_made_twice() -> None:
    day = channel(give_up_after_s=86_400.0)
    some = [Waiting("old", NOON_S - 86_401, True), Waiting("under way", NOON_S - 60, False, (Try(1, NOON_S - 30, False),)),
            Waiting("failed", NOON_S - 60, False, (Try(1, NOON_S - 30, True),))]  # fmt: skip
    found = sending(day, some, Recent(), NOON_S)
    assert found.given_up == ("old",) and found.singles == (("failed", 2),)


def test_a_slow_channel_gets_fifty_at_once() -> None:
    many = channel(group=GroupSettings(more_than=1000))
    assert len(sending(many, waits(200, NOON_S), Recent(), NOON_S).singles) == MOST_AT_ONCE == 50
