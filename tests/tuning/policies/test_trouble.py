"""What fails is tried again after growing pauses, and told at the second failure, then daily: as tables."""

from __future__ import annotations

import pytest

from tuning.policies.trouble import Trouble, again, due, to_tell

AT_S = 1_000_000.0


def trouble(times: int, **more: float) -> Trouble:
    return Trouble.model_validate(
        {"key": "k", "what": "w", "reason": "r", "since_s": AT_S, "last_s": AT_S, "times": times} | more
    )


def test_failures_in_a_row_are_counted_from_the_first() -> None:
    first = again(None, "k", "ranker", "refused", 10.0)
    second = again(first, "k", "the ranker", "gone", 20.0)
    assert (first.times, first.since_s, first.last_s, first.told_s) == (1, 10.0, 10.0, None)
    assert (second.times, second.since_s, second.last_s) == (2, 10.0, 20.0)
    assert (second.what, second.reason) == ("the ranker", "gone")


@pytest.mark.parametrize(
    ("times", "after_s", "now"),
    [
        (1, 0.0, True),
        (2, 0.0, True),
        (3, 0.0, False),
        (3, 29.0, False),
        (3, 30.0, True),
        (4, 59.0, False),
        (4, 60.0, True),
        (7, 479.0, False),
        (7, 480.0, True),
        (8, 899.0, False),  # a quarter of an hour at most
        (8, 900.0, True),
        (5000, 900.0, True),
        (3, -1.0, True),  # a clock that stepped back
    ],
)
def test_when_it_is_tried_again(times: int, after_s: float, now: bool) -> None:
    assert due(trouble(times), AT_S + after_s) is now


def test_what_never_failed_is_tried() -> None:
    assert due(None, AT_S)


@pytest.mark.parametrize(
    ("times", "told_s", "tell"),
    [
        (1, None, False),
        (2, None, True),
        (9, AT_S - 86_399.0, False),
        (9, AT_S - 86_400.0, True),
        (9, AT_S + 86_400.0, True),
    ],
)
def test_when_a_person_is_told(times: int, told_s: float | None, tell: bool) -> None:
    assert to_tell(trouble(times, told_s=told_s) if told_s is not None else trouble(times), AT_S) is tell
