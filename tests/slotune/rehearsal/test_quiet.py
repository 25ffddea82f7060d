"""What a rehearsal's sweep leaves out is what it would have found nothing about, judged one sweep at a time."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from benchmarks.rehearse.cost import STEP_S, history, settings_text
from detection import pipeline
from slotune.rehearsal.counterfactual import Counterfactual, usual
from slotune.rehearsal.drivers import drivers
from slotune.rehearsal.loop import _Shown, settings_for
from slotune.rehearsal.quiet import QuietTimes
from tests.fakes.ledger import FakeLedger
from tuning import planning, verification
from tuning.loop.learn import learn_baselines
from tuning.loop.observe import look_back
from tuning.loop.parts import Parts
from tuning.loop.watch import stored_baselines
from tuning.services_yaml import loads

DAYS, SERVICES = 1.5, 3


@pytest.fixture(scope="module")
def rehearsed():
    """Three services: one is overloaded for an hour, one has gaps, one is quiet; learned from their first day."""
    settings = settings_for(loads(settings_text(SERVICES)), STEP_S)
    worlds = {}
    for number, service in enumerate(settings.service_values()):
        found = history(DAYS, number)
        values = {name: series.copy() for name, series in found.window.values.items()}
        if number == 0:
            for name, factor in (("p95_ms", 9.0), ("p50_ms", 7.0), ("queue_ms", 20.0)):
                values[name][-400:-340] *= factor
        if number == 1:
            for series in values.values():
                series[-300:-270] = np.nan
        window = dataclasses.replace(found.window, service=service.name, values=values)
        found = dataclasses.replace(found, window=window)
        causes = drivers(window, service, settings.prometheus.rate_window_s)
        worlds[service.name] = Counterfactual(
            service, found, causes, usual(causes, service), settings.prometheus.rate_window_s, window.span.start_s
        )
    parts = Parts(
        settings=settings, services={s.name: s for s in settings.service_values()}, source=_Shown(worlds),
        actuator=lambda _service, _lever: None, planner=planning.get("model")(settings.planning),
        verifier=verification.get("before_after")(settings.verification), ledger=FakeLedger(), notifiers=[],
    )  # fmt: skip
    span = next(iter(worlds.values())).window.span
    learned_s = span.start_s + 86_400.0
    for world in worlds.values():
        world.advance(span.end_s)
    learn_baselines(parts, learned_s)
    return parts, worlds, learned_s, span.end_s


def found_at(parts, at_s: float) -> set[str]:
    """The services about which one sweep alone finds anything."""
    services, settings = tuple(parts.services.values()), parts.settings.detection
    windows = parts.source.read(services, pipeline.signals_needed(services, settings), look_back(parts, at_s))
    _, scores, _ = pipeline.detect(services, windows, stored_baselines(parts.ledger), at_s, settings)
    return {score.service for score in scores if score.tier is not None}


@pytest.mark.parametrize("every_s", [300.0, 420.0])
def test_nothing_that_a_sweep_finds_is_left_out(rehearsed, every_s):
    parts, worlds, learned_s, end_s = rehearsed
    quiet = QuietTimes(parts, worlds, every_s, end_s)
    times = np.arange(learned_s + 600.0, end_s, every_s).tolist()
    looked_at = {at_s: set(quiet.to_look_at(at_s)) for at_s in times}
    found = {at_s: found_at(parts, at_s) for at_s in times}
    assert any("service-0" in names for names in found.values())
    assert any("service-1" in names for names in found.values())
    assert [at_s for at_s in times if not found[at_s] <= looked_at[at_s]] == []
    assert np.mean([len(names) for names in looked_at.values()]) < 0.5 * SERVICES, "most of it is quiet"


def test_a_service_whose_setting_is_not_the_recorded_one_is_always_looked_at(rehearsed):
    parts, worlds, learned_s, end_s = rehearsed
    world = worlds["service-2"]
    twin = Counterfactual(
        world.service, dataclasses.replace(history(DAYS, 2), window=world.window), world.drivers, world.draw, 60.0, learned_s
    )
    quiet = QuietTimes(parts, {**worlds, "service-2": twin}, 300.0, end_s)
    assert "service-2" not in quiet.to_look_at(learned_s)
    twin.put("batch_size", (8, 0.0))
    assert "service-2" in quiet.to_look_at(learned_s)
