"""Mail over a real SMTP server on loopback, and what is said when there is none."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator

import pytest
from aiosmtpd.controller import Controller

from detection.errors import ConfigError, Permanent, Temporary
from slotune.connections import EnvironmentConnections
from tests.fakes import reports
from tuning.channel_settings import plain_channel
from tuning.notifiers import REGISTRY, get
from tuning.notifiers.settings import MailSettings
from tuning.notifiers.smtp import SmtpNotifier
from tuning.report import render

SETTINGS = MailSettings(to=("oncall@example.com",), sender="slotune@example.com")


class Keeper:
    def __init__(self) -> None:
        self.kept: list[bytes] = []
        self.answer: str | None = None

    async def handle_RCPT(self, server, session, envelope, address, options):
        if self.answer:
            return self.answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server, session, envelope):
        self.kept.append(envelope.content)
        return "250 OK"


@pytest.fixture
def server() -> Iterator[tuple[Keeper, SmtpNotifier]]:
    keeper = Keeper()
    controller = Controller(keeper, hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield keeper, notifier(f"smtp://127.0.0.1:{controller.port}?disable_tls=true&timeout=3")
    finally:
        controller.stop()


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def notifier(url: str) -> SmtpNotifier:
    return SmtpNotifier(SETTINGS, EnvironmentConnections({"SLOTUNE_CONN_SMTP_DEFAULT": url}))


@pytest.mark.server
def test_the_mail_arrives(server):
    keeper, smtp = server
    smtp.send(render(reports.report()))
    assert len(keeper.kept) == 1 and b"multipart/alternative" in keeper.kept[0]


@pytest.mark.server
@pytest.mark.parametrize(
    ("answer", "error"),
    [("451 try later", Temporary), ("550 no such user", Permanent)],
    ids=["4xx: later", "5xx: never"],
)
def test_refused_recipients(server, answer, error):
    keeper, smtp = server
    keeper.answer = answer
    with pytest.raises(error):
        smtp.send(render(reports.report()))
    assert keeper.kept == []


def test_nobody_listens():
    with pytest.raises(Temporary, match="gives no answer"):
        notifier(f"smtp://127.0.0.1:{free_port()}?timeout=1").send(render(reports.report()))


@pytest.mark.server
def test_a_server_that_says_nothing_is_unreachable_within_its_timeout():
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        with pytest.raises(Temporary):
            notifier(f"smtp://127.0.0.1:{silent.getsockname()[1]}?timeout=0.5").send(render(reports.report()))


@pytest.mark.server
def test_garbage_instead_of_smtp():
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def talk() -> None:
            peer, _ = server.accept()
            peer.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")
            peer.close()

        threading.Thread(target=talk, daemon=True).start()
        with pytest.raises((Temporary, Permanent)):
            notifier(f"smtp://127.0.0.1:{server.getsockname()[1]}?timeout=1").send(render(reports.report()))


@pytest.mark.server
def test_a_password_is_never_sent_in_the_clear(server):
    keeper, _ = server
    port = free_port()
    controller = Controller(keeper, hostname="127.0.0.1", port=port)
    controller.start()
    try:
        with pytest.raises(Permanent, match="password"):
            notifier(f"smtp://user:secret@127.0.0.1:{port}?timeout=2").send(render(reports.report()))
    finally:
        controller.stop()


def test_an_undefined_connection_names_the_variable():
    smtp = SmtpNotifier(SETTINGS, EnvironmentConnections({}))
    with pytest.raises(ConfigError, match="SLOTUNE_CONN_SMTP_DEFAULT"):
        smtp.send(render(reports.report()))


def test_without_recipients_nothing_is_opened():
    SmtpNotifier(MailSettings(), EnvironmentConnections({})).send(render(reports.report()))


@pytest.mark.parametrize("name", ["log", "nop"])
def test_the_others_never_fail(name):
    get(name)(plain_channel(name, "log"), SETTINGS, EnvironmentConnections({})).send(render(reports.report()))


def test_the_registry_is_sorted_and_says_what_it_knows():
    assert list(REGISTRY) == sorted(REGISTRY)
    with pytest.raises(ConfigError, match="alertmanager, apprise, log, nop, smtp"):
        get("smoke_signals")
