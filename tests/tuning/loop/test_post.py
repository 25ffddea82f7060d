"""Each channel has its own queue: one that is down holds up no other, and an outage of the fleet is one message."""

from __future__ import annotations

from dataclasses import replace

import pytest

from detection.errors import Permanent, Temporary
from detection.model import Incident
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, KeptMails, World, parts
from tuning.loop import announce, post, tell
from tuning.loop.parts import Parts
from tuning.mail import Mail

DAY_S = 86_400.0
NOTIFY = """
notify:
  base_url: http://page.example/slotune
  channels:
    - {name: chat, by: apprise, connection: chat, events: [incident, hold, verdict, approval, loop_failure], group: {more_than: 2, within: 10m}, give_up_after: 1d}
    - {name: pager, by: apprise, connection: pager, events: [incident], quiet: ["00:00-23:59"], services: [ranker]}
"""


class Channel(KeptMails):
    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name


class Shown(Channel):
    """A channel that shows what is true now."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.stood: list[list[Mail]] = []

    def stand(self, mails) -> None:
        if self.error is not None:
            raise self.error
        self.stood.append(list(mails))


@pytest.fixture
def told() -> tuple[Parts, FakeLedger, Channel, Channel, World]:
    world, ledger, chat, pager = World(), FakeLedger(), Channel("chat"), Channel("pager")
    loop = parts(world, ledger, chat, NOTIFY + SERVICES)
    return replace(loop, notifiers=[chat, pager], page="http://page.example/slotune"), ledger, chat, pager, world


def mail(name: str, at_s: float, **kwargs) -> Mail:
    return Mail(name, f"[slotune] Hold: {name}", f"<p>{name}</p>", name, at_s, **{"event": "hold", "service": "ranker", **kwargs})


def sent(ledger: FakeLedger) -> list[str]:
    return sorted(r.id.removesuffix(":sent") for r in ledger.records.values() if r.id.endswith(":sent"))


def test_a_channel_that_is_down_holds_up_no_other_and_gets_its_own_later(told) -> None:
    loop, ledger, chat, pager, world = told
    chat.error = Temporary("the service of connection 'chat' did not take the message")
    at_s = world.now()
    post.post(loop, mail("one", at_s, event="incident", urgent=True), at_s)
    assert [m.id for m in pager.mails] == ["one"] and sent(ledger) == []
    assert tell.send_unsent(loop, at_s + 5) == 0 and len(pager.mails) == 1, "the other is not told twice"
    chat.error = None
    assert tell.send_unsent(loop, at_s + 60) == 1
    assert [m.id for m in chat.mails] == ["one"] and len(pager.mails) == 1 and sent(ledger) == ["one"]
    assert chat.mails[0] == mail("one", at_s, event="incident", urgent=True), "as it was kept"
    assert tell.send_unsent(loop, at_s + 120) == 0 and len(chat.mails) == 1


def test_while_it_is_down_a_sweep_tries_it_once_and_not_for_every_message(told) -> None:
    loop, _ledger, _chat, _pager, world = told
    tried: list[str] = []

    class Down(Channel):
        def send(self, mail: Mail) -> None:
            tried.append(mail.id)
            raise Temporary("nobody there")

    loop = replace(loop, notifiers=[Down("chat")])
    for n in range(40):
        post.keep(loop, mail(f"m{n}", world.now(), urgent=True), world.now())
    tell.send_unsent(loop, world.now())
    assert len(tried) == 1
    tell.send_unsent(loop, world.now() + 60)
    assert len(tried) == 2


def test_a_message_that_nobody_takes_is_given_up_and_counted(told) -> None:
    loop, ledger, chat, _pager, world = told
    chat.error = Temporary("nobody there")
    at_s = world.now()
    post.post(loop, mail("old", at_s), at_s)
    for hour in range(1, 26):
        tell.send_unsent(loop, at_s + hour * 3600.0)
    assert sent(ledger) == ["old"]
    (done,) = [r for r in ledger.records.values() if r.body.get("given_up")]
    assert "given up after 24 hours: nobody there" in str(done.body["note"])
    tries = [r for r in ledger.records.values() if r.body.get("try")]
    assert 10 <= len(tries) <= 30


def test_a_refusal_is_final_and_counted(told) -> None:
    loop, ledger, chat, _pager, world = told
    chat.error = Permanent("check the connection's address and tokens")
    post.post(loop, mail("no", world.now()), world.now())
    assert sent(ledger) == ["no"]
    assert [r.body["given_up"] for r in ledger.records.values() if r.body.get("done")] == [True]


def incident(n: int, at_s: float) -> Incident:
    return Incident(id=f"i{n}", service="ranker", symptom="latency", tier="act", severity="critical", opened_at_s=at_s - 60,
                    detected_at_s=at_s, signals=("p95_ms",), anomalies=(), reason=f"P95 {n} ms is over the SLO")  # fmt: skip


def test_three_hundred_incidents_at_once_are_one_message(told) -> None:
    loop, ledger, chat, pager, world = told
    at_s = world.now()
    announce.opened(loop, [incident(n, at_s) for n in range(300)], at_s)
    tell.send_unsent(loop, at_s)
    (one,) = chat.mails
    assert one.subject.startswith("[slotune] 300 messages about ranker: 300 Incident") and one.urgent
    assert one.text.count("http://page.example/slotune/incidents/") == 20 and "280 more" in one.text
    assert len(sent(ledger)) == 300 and len(pager.mails) == 1
    post.post(loop, mail("after", at_s + 30), at_s + 30)
    assert len(chat.mails) == 1, "what follows within its time waits for the next one"
    assert tell.send_unsent(loop, at_s + 601) == 1 and chat.mails[-1].id == "after"


def test_an_incident_is_told_with_its_page_and_is_told_to_be_over(told) -> None:
    loop, _ledger, chat, pager, world = told
    at_s = world.now()
    announce.opened(loop, [incident(1, at_s)], at_s)
    announce.opened(loop, [incident(1, at_s)], at_s + 1)
    tell.send_unsent(loop, at_s)
    announce.closed(loop, [incident(1, at_s)], at_s + 300)
    tell.send_unsent(loop, at_s + 300)
    assert [m.over for m in chat.mails] == [False, True]
    assert all(m.url == "http://page.example/slotune/incidents/i1" and m.url in m.html for m in chat.mails)
    assert [m.over for m in pager.mails] == [False], "that it is over is not urgent, and its hours are quiet"


def test_who_shows_what_is_true_is_told_everything_anew_and_nothing_is_queued_for_it(told) -> None:
    loop, ledger, _chat, _pager, world = told
    shown = Shown("chat")
    loop, at_s = replace(loop, notifiers=[shown]), world.now()
    announce.opened(loop, [incident(1, at_s)], at_s)
    assert not [r for r in ledger.records.values() if r.kind == "message"]
    announce.repeat(loop, [incident(1, at_s), incident(2, at_s)], at_s)
    assert [m.about for m in shown.stood[0]] == ["i1", "i2"] and all(m.ends_s > at_s + 60 for m in shown.stood[0])
    shown.error = Temporary("nobody there")
    announce.repeat(loop, [incident(1, at_s)], at_s)


def test_the_report_goes_on_while_its_channels_break(told) -> None:
    loop, _ledger, chat, _pager, world = told
    chat.error = RuntimeError("of no known kind")
    assert "broke" in post.post(loop, mail("x", world.now()), world.now())


def test_a_change_is_told_where_somebody_asked_for_it() -> None:
    from tuning.loop.once import run_once

    world, ledger, mails, chat = World(qps=lambda t: 60.0 if t < 120 else 180.0), FakeLedger(), KeptMails(), Channel("chat")
    loop = parts(world, ledger, mails, NOTIFY.replace("[incident, hold, verdict, approval, loop_failure]", "[change]") + SERVICES)
    world.wait(240)
    run_once(replace(loop, notifiers=[mails, chat]), world.now, world.wait_until)
    assert [m.event for m in chat.mails] == ["change"] and "batch_size 1 →" in chat.mails[0].subject
    assert [m.event for m in mails.mails] == ["verdict"]
