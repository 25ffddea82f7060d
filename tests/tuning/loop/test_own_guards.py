"""A service's own signals hold a verdict to account: a business metric that falls makes a win a loss."""

from __future__ import annotations

import re

import numpy as np
import pytest

from detection.model import Span
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import SERVICES, START_S, KeptMails, World, parts
from tuning.loop.once import run_once

SIGNAL = 'signals: {conversion: {class: %s, promql: "sum(x)", unit: share, worse: down, floor: 0.5%%}}'


class Shop(World):
    """A service whose answers are worth something: `worth` by batch size; None: nobody counts."""

    def __init__(self, worth, **kwargs) -> None:
        super().__init__(qps=lambda t: 60.0 if t < 120 else 180.0, **kwargs)
        self._worth = worth

    def values(self, signal: str, span: Span) -> np.ndarray:
        if signal != "conversion":
            return super().values(signal, span)
        sizes = super().values("batch_size", span)
        noise = np.random.default_rng(7).normal(0, 0.0005, 10_000)
        at = np.clip(np.round(span.times() - START_S).astype(int), 0, 9_999)
        worth = [np.nan if np.isnan(b) or (w := self._worth(b)) is None else w for b in sizes]
        return np.array(worth, dtype=float) + noise[at]


def tuned(worth, kind: str = "business"):
    """The world after a surge that a larger batch cures, and the mails."""
    world, mails = Shop(worth), KeptMails()
    loop = parts(world, FakeLedger(), mails, services=SERVICES.replace("mode: act", f"mode: act\n    {SIGNAL % kind}"))
    world.wait(60)
    for _ in range(16):
        run_once(loop, world.now, world.wait_until)
        world.wait(15)
    return world, [mail for mail in mails.mails if "batch size" in mail.subject]


def test_a_conversion_that_falls_makes_a_win_a_loss():
    world, mails = tuned(lambda batch: 0.031 if batch == 1 else 0.018)
    assert world.batch_size == 1
    assert any("Rolled back" in mail.subject for mail in mails)
    assert any(re.search(r"conversion fell from 3\.\d+ % to 1\.\d+ %", mail.text) for mail in mails)


@pytest.mark.parametrize(
    ("worth", "said"),
    [
        (lambda batch: 0.031, r"3\.\d+ % before, 3\.\d+ % after"),
        (lambda batch: 0.031 if batch == 1 else 0.0285, r"3\.\d+ % before, 2\.\d+ % after"),
        (lambda batch: 0.031 if batch == 1 else None, "no data after the change: it says nothing about it"),
        (lambda batch: None, "no data before or after the change"),
    ],
    ids=["as before", "less than is news", "nobody counts any more", "nobody ever counted"],
)
def test_what_loses_nothing_or_shows_nothing_is_kept_and_told(worth, said):
    world, mails = tuned(worth)
    assert world.batch_size > 1
    (mail,) = [mail for mail in mails if "Resolved" in mail.subject]
    assert "Guard: conversion: ok." in mail.text and re.search(said, mail.text)


def test_a_resource_of_ones_own_is_watched_and_holds_nothing_back():
    world, mails = tuned(lambda batch: 0.031 if batch == 1 else 0.018, kind="resource")
    assert world.batch_size > 1 and all("conversion" not in mail.text for mail in mails)
