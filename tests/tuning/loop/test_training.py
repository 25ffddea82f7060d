"""A training job through the whole loop: watched, diagnosed, told with advice; nothing is ever changed."""

from __future__ import annotations

import dataclasses

import numpy as np

from detection.model import MetricWindow, Reading, Span
from slotune.views import incidents
from slotune.views.reading import Reading as Page
from tests.detection.test_training import STEP_S, job
from tests.fakes.ledger import FakeLedger
from tests.fakes.world import KeptMails, World, parts
from tuning.loop.once import run_once

SERVICES = """
prometheus: {rate_window: 2m, step: 1m}
detection: {lookback: 2h, detectors: [rules]}
mail: {to: [oncall@example.com]}
services:
  - name: job
    kind: training
    serving: training
    selectors: {job: train}
    slo: {iteration: 20s, for: 5m}
"""
T0_S = 1_800_000_000.0


class JobSource:
    """The recorded course of a job, until the end of what is asked for."""

    def __init__(self, window: MetricWindow) -> None:
        self.window = window

    def read(self, services, signals, span: Span):
        offsets = np.rint((span.times() - T0_S) / STEP_S).astype(int)
        known = (offsets >= 0) & (offsets < self.window.span.points)
        values = {}
        for name, course in self.window.values.items():
            if name in signals:
                values[name] = np.where(known, course[np.clip(offsets, 0, course.size - 1)], np.nan)
        return Reading({"job": MetricWindow("job", span, values)}, {})

    def read_replicas(self, services, signals, span):
        return Reading({}, {})

    def read_buckets(self, services, span):
        return Reading({}, {})


def test_a_job_that_waits_for_its_data_is_told_once_with_advice_and_stays_as_it_is():
    ledger, mails = FakeLedger(), KeptMails()
    loop = dataclasses.replace(parts(World(), ledger, mails, SERVICES), source=JobSource(job(2, "data")))
    clock = [T0_S + (100 + 5 * k) * STEP_S for k in range(4)]
    told = [report for at_s in clock for report in run_once(loop, lambda at_s=at_s: at_s, lambda _s: None)]
    assert told and all(not report.plan.chosen.changes and not report.receipts for report in told)
    assert {report.plan.diagnosis.cause for report in told} == {"data_bound"}
    (mail,) = [one for one in mails.mails if "job" in one.subject]
    words = " ".join(mail.text.split())
    assert "waits" in words and "for its data" in words and "a training job is only watched" in words
    assert "Advice: an iteration of" in words and "load with more workers" in words and "PyTorch" in words
    assert "P95" not in words.replace("P95 of", "")
    page = incidents.page(Page(ledger, ledger.get_blob, loop.settings, clock[-1]), told[0].incident.id)
    (attempt,) = page.attempts[:1]
    assert attempt.cause == "data bound" and any("load with more workers" in sentence for sentence in attempt.advice)
