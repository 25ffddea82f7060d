"""What every notifier keeps: it sends or says Temporary or Permanent, in a sentence without an address or a secret."""

from __future__ import annotations

import json
import logging
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from aiosmtpd.controller import Controller

from detection.errors import Permanent, Temporary
from slotune.connections import EnvironmentConnections
from tests.fakes.catcher import Catcher, catching
from tuning.channel_settings import ChannelSettings
from tuning.mail import Mail
from tuning.notifiers import REGISTRY, get
from tuning.notifiers.settings import MailSettings
from tuning.ports import Notifier, Probed, Repeated

SECRET = "T0k3n-that-nobody-may-see"
MAIL = Mail("m1", "[slotune] Hold: ranker: errors", "<p>errors</p>", "errors\n", 1_800_000_000.0, event="hold", service="ranker",
            brief="Seen: errors", url="http://page.example/slotune/incidents/i1", about="i1")  # fmt: skip
REACHING = ["alertmanager", "apprise", "smtp"]


class Post:
    """An SMTP server's handler that keeps what it is given, or refuses it with a code."""

    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.code = 0

    async def handle_DATA(self, server: Any, session: Any, envelope: Any) -> str:
        if self.code:
            return f"{self.code} {SECRET}"
        self.kept.append(envelope.content)
        return "250 OK"


class Subject:
    """One notifier on a real server on loopback, whatever that server speaks."""

    def __init__(self, by: str) -> None:
        self.by = by
        self.catching = catching()
        self.catcher: Catcher = self.catching.__enter__()
        self.catcher.answers = {"/am/api/v2/status": json.dumps({"versionInfo": {"version": "0.27.0"}})}
        self.post = Post()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.smtp = Controller(self.post, hostname="127.0.0.1", port=port)
        self.smtp.start()
        self.up = True

    def stop(self) -> None:
        if self.up:
            self.up = False
            self.catching.__exit__(None, None, None)
            self.smtp.stop()

    def notifier(self) -> Notifier:
        address = {
            "alertmanager": f"http://slotune:{SECRET}@{self.catcher.place}/am",
            "apprise": f"apprise+json://user:{SECRET}@{self.catcher.place}/hook",
            "smtp": f"smtp://127.0.0.1:{self.smtp.port}",
        }.get(self.by, "http://127.0.0.1:9")
        connections = EnvironmentConnections({"SLOTUNE_CONN_PLACE": address})
        channel = ChannelSettings(name="oncall", by=self.by if self.by != "nop" else "log", connection="place",
                                  to=("a@example.com",) if self.by == "smtp" else (), timeout_s=3)  # fmt: skip
        return get(self.by)(channel, MailSettings(), connections)

    def answers(self, http: int, smtp: int) -> None:
        self.catcher.status, self.catcher.said, self.post.code = http, f"no {SECRET}", smtp

    @property
    def taken(self) -> int:
        return len(self.catcher.posts) + len(self.post.kept)


@pytest.fixture(params=sorted(REGISTRY))
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    found = Subject(request.param)
    yield found
    found.stop()


@pytest.fixture(params=REACHING)
def reaching(request: pytest.FixtureRequest) -> Iterator[Subject]:
    found = Subject(request.param)
    yield found
    found.stop()


def test_it_sends_under_its_channels_name_and_can_be_asked_whether_it_would(subject: Subject) -> None:
    notifier = subject.notifier()
    assert notifier.name == "oncall" and isinstance(notifier, Probed)
    assert SECRET not in notifier.probe() and subject.taken == 0, "asking tells nobody"
    notifier.send(MAIL)
    assert subject.taken == (1 if subject.by in REACHING else 0)
    if isinstance(notifier, Repeated):
        notifier.stand([])
        assert subject.taken == 1


def no_secret(error: Exception, logged: pytest.LogCaptureFixture) -> None:
    """mail.log and asyncio are the test's own servers."""
    ours = [r.getMessage() for r in logged.records if r.name not in ("mail.log", "asyncio")]
    assert not any(SECRET in text or "127.0.0.1" in text for text in [str(error), *ours])


def test_nobody_there_is_temporary(reaching: Subject, caplog: pytest.LogCaptureFixture) -> None:
    notifier = reaching.notifier()
    reaching.stop()
    with caplog.at_level(logging.DEBUG), pytest.raises(Temporary) as raised:
        notifier.send(MAIL)
    assert "place" in str(raised.value) or "smtp_default" in str(raised.value)
    no_secret(raised.value, caplog)


@pytest.mark.parametrize(("http", "smtp", "expected"), [(500, 451, Temporary), (429, 421, Temporary), (403, 550, Permanent), (404, 554, Permanent)])
def test_later_is_temporary_and_no_is_permanent(reaching: Subject, caplog, http: int, smtp: int, expected: type[Exception]) -> None:
    reaching.answers(http, smtp)
    with caplog.at_level(logging.DEBUG), pytest.raises(expected) as raised:
        reaching.notifier().send(MAIL)
    no_secret(raised.value, caplog)


def test_a_message_with_hostile_text_is_sent_or_refused_and_never_breaks(subject: Subject) -> None:
    evil = "x\r\nBcc: all@example.com\x00\u202e\ud800 {{7*7}} <script>"
    mail = Mail("m2", f"[slotune] {evil}", evil, evil * 2000, 4e11, event="incident", service="r", labels={"a b/c": evil, "1": "x"})
    try:
        subject.notifier().send(mail)
    except (Temporary, Permanent) as error:
        assert "\n" not in str(error)
