"""Mistakes under `notify`: each is found at its key and told in a sentence."""

from __future__ import annotations

import pytest

from tuning.services_yaml import ServicesFileError, loads

SERVICE = "services:\n  - {name: ranker, serving: triton, selectors: {m: r}, slo: {p95: 1s}, labels: {team: a}}\nnotify:\n"


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("channels: [{name: a, by: apprise}]", "notify.channels[0]", "needs a connection"),
        ("channels: [{name: a, by: log, services: [rankr]}]", "notify.channels[0].services[0]", "did you mean 'ranker'?"),
        ("channels: [{name: a, by: log, labels: {team: b}}]", "notify.channels[0].labels", "no service has these labels"),
        ("channels: [{name: a, by: smtp}]", "notify.channels[0].to", "neither does mail.to"),
        ("channels: [{name: smtp, by: log}]", "notify", "choose another"),
        ("channels: [{name: a, by: log, quiet: [always]}]", "notify.channels[0].quiet", "is no time of the week: write"),
        ("channels: [{name: a, by: log, timezone: Mars}]", "notify.channels[0]", "is not a time zone"),
        ("channels: [{name: a, by: slack, connection: x}]", "notify.channels[0].by", "alertmanager, apprise, log, smtp"),
        ("channels: [{name: a, by: log, events: [outage]}]", "notify.channels[0].events[0]", "loop_failure"),
        ("base_url: airflow.example.com", "notify", "an address such as https://"),
        ("channels: [{name: a, by: apprise, connection: 'slack://x/y/z'}]", "notify.channels[0].connection", "not an address"),
        ("channels: [{name: a, by: log}, {name: a, by: log}]", "notify", "two channels have one name"),
        ("channels: [{name: a, by: log, group: {within: 10}}]", "notify.channels[0].group.within", "has no unit"),
    ],
)
def test_a_mistake_is_named_where_it_is(text: str, path: str, says: str) -> None:
    with pytest.raises(ServicesFileError) as raised:
        loads(f"{SERVICE}  {text}\n", thorough=True, known={})
    assert f": {path}: " in str(raised.value) and says in str(raised.value)
    assert "slack://" not in str(raised.value)


def test_a_channel_by_mail_takes_the_place_of_the_plain_one() -> None:
    plain = loads(SERVICE.replace("notify:\n", "mail: {to: [a@example.com]}\n"))
    assert [channel.name for channel in plain.channels()] == ["log", "smtp"]
    named = loads(SERVICE.replace("notify:\n", "mail: {to: [a@example.com]}\nnotify: {channels: [{name: team, by: smtp}]}\n"))
    assert [channel.name for channel in named.channels()] == ["log", "team"]
