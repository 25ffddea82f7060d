"""A build yields to what serves, and leaves no trace on the thread that asked for it."""

from __future__ import annotations

import os
import threading

import pytest

from tuning.errors import QuantizationRefused
from tuning.quantization.polite import politely


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


def test_the_work_is_nicer_than_the_caller_who_stays_as_he_was():
    before = niceness()
    assert politely(niceness, niceness=3) == min(19, before + 3)
    assert niceness() == before


def test_a_refusal_comes_through():
    def refuse() -> None:
        raise QuantizationRefused("no")

    with pytest.raises(QuantizationRefused, match="no"):
        politely(refuse)
