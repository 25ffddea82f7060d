"""While no run would do anything (tune_service is paused, say), people are told, as long as an incident needs one."""

from __future__ import annotations

from slotune.views.health import health
from slotune.views.reading import Reading
from tests.fakes.world import KeptMails, World, parts
from tuning.ledger import SqlLedger
from tuning.loop import watch

WHY = "tune_service is paused: nothing is done"


def sweep(loop, world, halted: str | None) -> int:
    found = watch.detect_anomalies(loop, watch.pull_metrics(loop, world.now()))
    started = watch.open_incidents(loop, found, halted=halted)
    world.wait(15)
    return len(started)


def problems(ledger, loop, world) -> tuple[str, ...]:
    return health(Reading(ledger, ledger.get_blob, loop.settings, world.now())).problems


def test_a_paused_tune_service_is_told_within_two_sweeps_of_an_incident_and_again_when_it_is_over(tmp_path):
    world, ledger, mails = (
        World(qps=lambda t: 60.0 if t < 90 else 180.0),
        SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.sqlite'}"),
        KeptMails(),
    )
    world.wait(60)
    loop = parts(world, ledger, mails)
    sweep(loop, world, WHY)
    assert mails.mails == [] and not any(WHY in text for text in problems(ledger, loop, world)), "nothing needs a run"
    for _ in range(12):
        sweep(loop, world, WHY)
    (told,) = mails.mails
    assert WHY in told.text and any(WHY in text for text in problems(ledger, loop, world))
    sweep(loop, world, None)
    assert len(mails.mails) == 2 and "over" in mails.mails[1].subject
    assert not any(WHY in text for text in problems(ledger, loop, world))
