"""review_week mails the week, and once a month the month before."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tests.fakes.ledger import FakeLedger
from tests.fakes.world import KeptMails, World, parts
from tuning.loop.once import run_once
from tuning.loop.review import month_before, review_week


@pytest.fixture
def lived():
    """(parts, mails, the time) after a surge that a larger batch cured."""
    world, mails = World(qps=lambda t: 60.0 if t < 120 else 180.0), KeptMails()
    loop = parts(world, FakeLedger(), mails)
    world.wait(60)
    for _ in range(12):
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    mails.mails.clear()
    return loop, mails, world.now_s


def test_the_week_counts_what_happened(lived):
    loop, mails, now_s = lived
    assert "sent" in review_week(loop, now_s)
    (mail,) = mails.mails
    assert mail.subject == "[slotune] Week: 1 incident, 1 resolved"
    assert "1 of 1" in mail.text and "too few to rate" in mail.text


def test_a_month_is_told_once_when_it_has_ended(lived):
    loop, mails, now_s = lived
    _, end_s = month_before(now_s + 40 * 86_400)
    assert "sent" in review_week(loop, end_s + 3600)
    assert "Month: 1 incident, 1 resolved" in mails.mails[-1].subject
    mails.mails.clear()
    review_week(loop, end_s + 7 * 86_400)
    assert [mail.subject for mail in mails.mails if "Month" in mail.subject] == []


@pytest.mark.parametrize(
    ("day", "start", "end"),
    [("2026-11-30", "2026-10-01", "2026-11-01"), ("2026-01-01", "2025-12-01", "2026-01-01"),
     ("2024-03-31", "2024-02-01", "2024-03-01")],
)  # fmt: skip
def test_the_month_before(day, start, end):
    def at(text):
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()

    assert month_before(at(day) + 12 * 3600) == (at(start), at(end))


def test_nothing_happened_is_no_mail():
    mails = KeptMails()
    loop = parts(World(), FakeLedger(), mails)
    assert review_week(loop, 1_800_000_000.0).startswith("nothing happened") and mails.mails == []
