"""The releases of the proving ground: drawn by seed alone, and judged by what the loop really did."""

from __future__ import annotations

from benchmarks.releases.__main__ import proportion, summary
from benchmarks.releases.cases import BAD, HARMLESS, bad, harmless
from benchmarks.releases.run import run


def test_cases_follow_from_their_seed_and_cover_every_kind():
    assert [harmless(s) for s in range(7)] == [harmless(s) for s in range(7)]
    assert {harmless(s).kind for s in range(len(HARMLESS))} == set(HARMLESS)
    assert {bad(s).kind for s in range(len(BAD))} == set(BAD)
    assert all(0.97 <= harmless(s).slow <= 1.03 and not harmless(s).errors for s in range(50))
    assert all(bad(s).slow >= 1.5 or bad(s).errors >= 0.03 for s in range(50))


def test_a_bad_one_is_taken_back_and_a_surge_beside_a_harmless_one_is_not_blamed_on_it():
    wrong, fine = run(bad(4)), run(harmless(2))
    assert wrong.reverted and wrong.named == ("6", "7") and wrong.first == "release"
    assert wrong.slower[1] <= wrong.slow <= wrong.slower[2]
    assert fine.broke and not fine.reverted and fine.first == "batch_size"
    told = summary([fine], [wrong])
    assert told["false_reverts"] == 0 and told["named_and_reverted_first"] == 1


def test_shares_have_exact_intervals():
    low, high = proportion(0, 200)
    assert low == 0 and 0.017 < high < 0.019
