"""What a reader is told, in a terminal, on the page and as JSON: every ending has its words, and none is a traceback."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from slotune.history import sentence
from slotune.stress.document import document
from slotune.stress.model import Found, Knee, Plan, Recovery, Saturation, Step
from slotune.stress.page import page
from slotune.stress.words import render, summary
from tuning.model import Interval

PLAN = Plan(start_per_s=10.0, bound_per_s=80.0, limits={"p95_ms": 100.0}, other_per_s=4.0)


def step(rate: float, p95_ms: float, verdict: str = "met", why: str = "") -> Step:
    p95 = {"p95_ms": Interval(value=p95_ms, low=0.9 * p95_ms, high=1.2 * p95_ms)}
    return Step(rate, rate, rate, 0.0, 20.0, 300, 20.0, 2 * p95_ms, p95, 0.0, 0.5, 0.1, verdict, why)


FOUND = Found(
    service="ranker", address="http://ranker:8000", protocol="oip", plan=PLAN, began_s=1_800_000_000.0, ended_s=1_800_000_300.0,
    steps=(step(10, 30), step(20, 60), step(40, 180, "broken", "P95 180 ms of 100 ms")), recoveries=(Recovery(40.0, 3.5, 6.0),),
    knee=Knee(28.0, 24.0, 33.0), turn=Interval(value=18.0, low=15.0, high=22.0), ended="the knee is narrowed down", main="p95_ms",
    saturated=(Saturation("busy", 40.0, 0.97, "share of time the service computes: 97%"),), learned="It learned.",
)  # fmt: skip


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({}, "ranker keeps its promise (P95 under 100 ms) up to 28/s [24/s to 33/s]. P95 turns upwards at 18/s [15/s to 22/s]."),
        ({}, "After 40/s it was back after 3.5 s. First at its limit, at 40/s: share of time the service computes: 97%."),
        ({"recoveries": (Recovery(40.0, 0.0, 2.0),)}, "After 40/s it was back at once."),
        ({"recoveries": (Recovery(40.0, None, 120.0),)}, "After 40/s it had not come back within 120 s."),
        ({"knee": Knee(None, 80.0, None)}, "at every rate that was measured, up to 80/s; the bound is reached."),
        ({"knee": Knee(None, 40.0, None)}, "at every rate that was measured, up to 40/s."),
        ({"knee": Knee(None, 0.0, 10.0)}, "at no rate that was tried: it is broken at 10/s already."),
        ({"knee": Knee(None, 0.0, None), "steps": ()}, "Whether ranker keeps its promise (P95 under 100 ms) cannot be told"),
        ({"turn": None}, "P95 does not turn upwards within what was measured."),
        ({"saturated": (), "untold": ("GPU utilisation",)}, "Nothing that can be seen reached its limit; not exported: GPU utilisation."),
        ({"saturated": (), "blind": "Prometheus is away"}, "What ran out first cannot be told: Prometheus is away."),
        ({"service": ""}, "http://ranker:8000 keeps its promise"),
        ({"recoveries": (), "steps": (step(10, 30),), "knee": Knee(None, 10.0, None)}, "It was never too much"),
    ],
)
def test_every_ending_has_its_words_and_its_page(changed, words):
    found = replace(FOUND, **changed)
    assert words in summary(found)
    assert "<h1>" in page(found) and render(found).startswith(summary(found))
    assert json.loads(json.dumps(document(found), allow_nan=False))["summary"] == summary(found)


def test_the_page_shows_every_step_and_the_knee():
    text = page(FOUND)
    assert text.count("<circle") == 3 and 'class="knee"' in text and "knee 28/s" in text and "turns 18/s" in text
    assert "P95 180 ms of 100 ms" in text and "It learned." in text
    assert "<circle" not in page(replace(FOUND, steps=(), knee=Knee(None, 0.0, None)))


def test_text_from_outside_is_text():
    nasty = "<script>alert(1)</script>"
    shown = page(replace(FOUND, service=nasty, notes=(nasty,), learned=nasty, blind=nasty, saturated=()))
    assert nasty not in shown and "&lt;script&gt;" in shown


def test_steps_without_an_answer_and_numbers_that_are_none():
    silent = replace(step(10, 30), p95={}, p50_ms=float("nan"), p99_ms=float("nan"), verdict="broken", why="no request was answered")
    found = replace(FOUND, steps=(silent, step(40, 180, "broken")))
    assert "no answer" in render(found) and "no answer" in page(found)
    assert document(found)["steps"][0]["p50_ms"] is None


def test_the_ledgers_lines_say_what_was_done():
    intent = {"address": "http://ranker:8000", "bound_per_s": 80.0, "start_s": 1.0, "until_s": 2.0}
    assert sentence("stress", "intent", intent) == "load of up to 80/s at http://ranker:8000"
    assert sentence("stress", "result", {**intent, **document(FOUND)}) == summary(FOUND)
    assert sentence("stress", "result", {**intent, "ended": "it failed"}) == "it failed"
