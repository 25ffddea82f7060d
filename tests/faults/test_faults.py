"""The fault campaign in its short form: a few of each kind of fault; `python -m tests.faults` plays them all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.faults.borders import BorderFault, play_border
from tests.faults.campaign import Fault, Result, check, play
from tests.faults.outside import CURE, FIRST_CURE, FIRST_HARM, HARM, Landing, Outside, Scenario
from tuning.ledger import SqlLedger

SHORT = [
    Fault("kill", CURE, 4),
    Fault("kill", CURE, 6),
    Fault("kill", CURE, 8),
    Fault("kill", CURE, 12),
    Fault("kill", HARM, 14),
    Fault("kill", HARM, 18),
    Fault("ledger-full", CURE, 5),
    Fault("control-down", HARM, 13),
    Fault("apply", CURE, 1, "timeout-landed"),
    Fault("apply", HARM, 2, "timeout-late"),
    Fault("apply", CURE, 1, "timeout-after-its-end"),
    Fault("somebody", CURE, 10),
    Fault("race", CURE, 0),
    Fault("kill", FIRST_CURE, 5),
    Fault("kill", FIRST_CURE, 10),
    Fault("kill", FIRST_CURE, 18),
    Fault("kill", FIRST_CURE, 22),
    Fault("kill", FIRST_CURE, 24),
    Fault("kill", FIRST_HARM, 18),
    Fault("apply", FIRST_CURE, 1, "timeout-after-its-end"),
    Fault("apply", FIRST_CURE, 3, "403"),
    Fault("apply", HARM, 2, "clamped"),
    Fault("somebody", FIRST_CURE, 16, "on one replica"),
    Fault("race", FIRST_CURE, 0),
    Fault("kill", CURE, 6, drive="slotune run"),
    Fault("kill", HARM, 14, drive="slotune run"),
    Fault("kill", FIRST_CURE, 18, drive="slotune run"),
    Fault("apply", HARM, 2, "timeout-late", drive="slotune run"),
    Fault("ledger-full", CURE, 5, drive="slotune run"),
    Fault("race", CURE, 0, drive="slotune run"),
]

BORDERS = [
    BorderFault("prometheus", CURE, 130, "403"),
    BorderFault("prometheus", HARM, 130, "garbage"),
    BorderFault("control", HARM, 130, "500"),
    BorderFault("change", HARM, 2, "clamped"),
    BorderFault("mail", HARM, 130, "451"),
]
"""The same story through real sockets; `python -m tests.faults --borders` plays them all."""


@pytest.mark.faults
@pytest.mark.parametrize("fault", BORDERS, ids=BorderFault.text)
def test_a_border_that_misbehaves_leaves_nothing_half_made(fault: BorderFault, tmp_path: Path) -> None:
    assert play_border(fault, tmp_path / "fault").wrong() == []


@pytest.mark.faults
@pytest.mark.parametrize("fault", SHORT, ids=Fault.text)
def test_nothing_is_left_half_made(fault: Fault, tmp_path: Path) -> None:
    result = play(fault, tmp_path / "fault")
    assert result.wrong() == []
    assert result.struck


def checked(tmp_path: Path, *landings: Landing, scenario: Scenario = HARM) -> Result:
    SqlLedger.open(f"sqlite:///{tmp_path / 'ledger.db'}")
    outside = Outside(tmp_path / "outside.json", scenario, landings=list(landings))
    outside.advance(outside.now_s + 5000.0)
    result = Result(Fault("kill", scenario, 1))
    check(result, tmp_path)
    return result


def test_the_campaign_would_notice(tmp_path: Path) -> None:
    """A check that cannot fail proves nothing: a change that the ledger knows nothing of, made twice, and left."""
    start_s = Outside(tmp_path / "none.json", HARM).now_s
    result = checked(
        tmp_path,
        Landing(start_s + 10, "p:batch_size", 1, 8),
        Landing(start_s + 20, "q:batch_size", 8, 1),
        Landing(start_s + 30, "p:batch_size", 1, 8),
    )
    assert result.orphan
    assert result.double
    assert result.lost
    assert result.over_time


def test_the_campaign_would_notice_a_replica_that_was_left_behind(tmp_path: Path) -> None:
    start_s = Outside(tmp_path / "none.json", FIRST_HARM).now_s
    made = [Landing(start_s + 10 * n, "p:batch_size", 1, 8, replica=f"ranker-{n}") for n in range(2)]
    result = checked(tmp_path, *made, scenario=FIRST_HARM)
    assert any("left apart: batch sizes [1, 8]" in text for text in result.orphan)
    assert len(result.over_time) == 2
