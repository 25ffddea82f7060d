"""When a report is tried again, as a table."""

from __future__ import annotations

import pytest

from tuning.policies.outbox import Try, next_try

AT_S = 100_000.0


@pytest.mark.parametrize(
    ("tries", "number"),
    [
        ([], 1),
        ([Try(1, AT_S - 14.0, True)], None),
        ([Try(1, AT_S - 15.0, True)], 2),
        ([Try(1, AT_S - 599.0, False)], None),  # under way
        ([Try(1, AT_S - 600.0, False)], 2),  # its process died
        ([Try(1, AT_S - 9000.0, True), Try(2, AT_S - 5.0, True)], None),  # the newest counts
        ([Try(2, AT_S - 16.0, True), Try(1, AT_S - 5.0, True)], 3),
        ([Try(20, AT_S - 15.0, True)], 21),
        ([Try(21, AT_S - 29.0, True)], None),  # from here each pause is twice the one before
        ([Try(21, AT_S - 30.0, True)], 22),
        ([Try(24, AT_S - 239.0, True)], None),
        ([Try(24, AT_S - 240.0, True)], 25),
        ([Try(27, AT_S - 1919.0, True)], None),
        ([Try(27, AT_S - 1920.0, True)], 28),
        ([Try(28, AT_S - 3599.0, True)], None),  # an hour at most
        ([Try(28, AT_S - 3600.0, True)], 29),
        ([Try(4000, AT_S - 3600.0, True)], 4001),
        ([Try(1, AT_S + 15.0, True)], 2),  # a clock that stepped back
    ],
)
def test_the_next_try(tries: list[Try], number: int | None) -> None:
    assert next_try(tries, AT_S) == number
