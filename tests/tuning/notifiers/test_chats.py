"""What Slack and PagerDuty are sent, against the shapes that they document; by Apprise, caught on loopback.

Slack: https://docs.slack.dev/messaging/sending-messages-using-incoming-webhooks. PagerDuty, Events API v2:
https://developer.pagerduty.com/docs/events-api-v2-overview. Their addresses are fixed in Apprise, so its sessions are
led to the catcher by a proxy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest

from detection.errors import Permanent
from slotune.connections import EnvironmentConnections
from tests.fakes import reports
from tests.fakes.catcher import Catcher, behind_proxy
from tuning.channel_settings import ChannelSettings
from tuning.notifiers import get
from tuning.notifiers.settings import MailSettings
from tuning.report import render

URL = "https://airflow.example.com/slotune/incidents/incident1"
SLACK = "apprise+slack://T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ/#oncall?verify=no"
PAGER = f"apprise+pagerduty://{'i' * 32}@{'a' * 20}?verify=no"


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Catcher]:
    with behind_proxy() as catcher:
        monkeypatch.setenv("HTTPS_PROXY", f"http://{catcher.place}")
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        yield catcher


def send(address: str, report) -> None:
    channel = ChannelSettings(name="oncall", by="apprise", connection="oncall", timeout_s=5)
    notifier = get("apprise")(channel, MailSettings(), EnvironmentConnections({"SLOTUNE_CONN_ONCALL": address}))
    notifier.send(replace(render(report), url=URL))


def test_slack_is_sent_a_message_with_its_documented_fields(wire: Catcher) -> None:
    send(SLACK, reports.report())
    ((path, headers, body),) = wire.posts
    assert path == "/services/T1JJ3T3L2/A1BRTD4JD/TIiajkdnlazkcOXrIdevi7FQ" and headers["host"] == "hooks.slack.com"
    assert headers["content-type"].startswith("application/json") and body["channel"] == "#oncall"
    (attachment,) = body["attachments"]
    assert "Resolved: ranker" in str(attachment) and URL in str(attachment) and "batch size 1 → 8" in str(attachment)
    assert {"text", "blocks", "attachments"} & set(body)


def test_pagerduty_is_sent_an_event_with_its_documented_fields(wire: Catcher) -> None:
    wire.status, wire.said = 202, '{"status": "success"}'
    send(PAGER, reports.held())
    ((path, headers, body),) = wire.posts
    assert path == "/v2/enqueue" and headers["host"] == "events.pagerduty.com"
    assert body["routing_key"] in ("i" * 32, "a" * 20) and body["event_action"] in ("trigger", "acknowledge", "resolve")
    payload = body["payload"]
    assert {"summary", "source", "severity"} <= set(payload) and payload["severity"] in ("critical", "error", "warning", "info")
    assert "Hold: ranker" in str(body) and URL in str(body) and len(payload["summary"]) <= 1024


def test_a_token_that_is_refused_is_a_sentence(wire: Catcher) -> None:
    wire.status, wire.said = 403, "invalid_token"
    with pytest.raises(Permanent, match="answered 403"):
        send(SLACK, reports.report())
