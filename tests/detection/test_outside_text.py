"""Text from outside is shown so that it can do nothing to a terminal, a log or a reader."""

from __future__ import annotations

import pytest

from detection.outside_text import printable


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain words", "plain words"),
        ("a\r\nINFO forged", "a INFO forged"),
        ("\x1b]0;x\x07", "\\x1b]0;x\\x07"),
        ("\x9b2J", "\\x9b2J"),
        ("abc\u202edef", "abc\\u202edef"),
        ("\ud800", "\\ud800"),
        ("zero\u200bwidth", "zero\\u200bwidth"),
        ("größer 5 µs", "größer 5 µs"),
        (None, "None"),
    ],
)
def test_nothing_harmful_is_left(text: object, shown: str):
    assert printable(text) == shown
    printable(text).encode("utf-8")


def test_length_is_bounded():
    assert len(printable("x" * 10**7)) == 300
    assert len(printable("\x1b" * 10**6, 40)) == 40
