"""What a round of leaks comes to; the round itself takes real processes and minutes."""

from __future__ import annotations

from dataclasses import replace

from benchmarks.restarts.__main__ import summary, table
from benchmarks.restarts.run import LIMIT_MB, Result, cases

WELL = Result("svc0", True, 2.0, 31.0, 120.0, (65.0, 60.0, 70.0), 0, 900, 0, "leaking_replica", "improved")
ALONE = replace(WELL, name="svc1", healed=False, restarted_s=None, killed=1, failed=3, verdict="")


def test_a_leak_is_well_only_when_it_was_restarted_in_time_and_nobody_lost_a_request() -> None:
    late, lost, never = replace(WELL, killed=1), replace(WELL, failed=1), replace(WELL, restarted_s=None)
    assert [one.well for one in (WELL, late, lost, never)] == [True, False, False, False]
    found = summary([WELL, late, lost, never, ALONE])
    assert (found["leaks"], found["restarted_before_the_limit"], found["without_a_failed_request"]) == (4, 2, 1)
    assert (found["left_alone"], found["left_alone_and_killed"], found["failed_requests"]) == (1, 1, 1)


def test_the_table_has_a_line_for_each() -> None:
    first, _, healed, alone = table([WELL, ALONE]).splitlines()
    assert first.count("|") == healed.count("|") == alone.count("|")
    assert f"31 s | 120 of {LIMIT_MB} | 65 s (60 to 70)" in healed and "left alone" in alone


def test_cases_depend_on_their_seed_alone_and_reach_the_limit_within_a_round() -> None:
    leaks = cases(10, 2, seed=3)
    assert leaks == cases(10, 2, seed=3) != cases(10, 2, seed=4)
    assert sum(leak.healed for leak in leaks) == 10 and all(1.6 <= leak.mb_per_s <= 2.6 for leak in leaks)
