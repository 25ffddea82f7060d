"""Mistakes in a breaker lever of services.yaml: one sentence each, at its line, before anything is done."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from slotune.schema import services_schema
from tuning.services_yaml import ServicesFileError, loads

GOOD = """\
services:
  - name: ranker
    serving: triton
    selectors: {model: ranker}
    slo: {p95: 100ms}
    mode: act
    signals:
      eu_failed: {class: inference, promql: "sum by ($by) (rate(x{$sel}[$w]))", unit: share, worse: up}
      us_p95: {class: inference, promql: "max by ($by) (y{$sel})", unit: ms, worse: up}
    levers:
      breaker:
        connection: gateway
        open_for: 2m
        states: {closed: 100, half_open: 5, open: 0}
        read: {path: /routes}
        write: {path: "/routes/{route}", body: {weight: "{state}"}}
        routes:
          - {name: eu, state_at: /eu/weight, capacity: 80, failed: eu_failed, max_failed: 20%}
          - {name: us, value: us-east, state_at: /us/weight, capacity: 60, p95: us_p95, max_p95: 400ms}
"""


def test_it_is_read_and_a_person_is_asked_by_default():
    (service,) = loads(GOOD, thorough=True).service_values()
    lever = service.levers["breaker"]
    assert (lever.mode, lever.actuator, lever.options["open_for_s"]) == ("approve", "http_breaker", 120.0)
    assert lever.options["states"] == {"closed": "100", "half_open": "5", "open": "0"}
    assert lever.options["routes"][1]["max_p95_ms"] == 400.0


def test_an_editor_takes_what_the_reader_takes():
    jsonschema.validate(yaml.safe_load(GOOD), services_schema())


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("failed: eu_failed, max_failed: 20%", "max_failed: 20%", "eu needs a signal of its own: failed or p95"),
        ("failed: eu_failed", "failed: eu_fails", "the service has no signal 'eu_fails' under `signals:`"),
        (", max_p95: 400ms", "", "needs both p95 (the signal) and max_p95"),
        ("capacity: 80, ", "", "capacity: is missing"),
        ("name: us, value", "name: eu, value", "two routes have the name eu"),
        ("value: us-east", "value: eu", "two routes have the value eu"),
        ("half_open: 5", "half_open: 0", "two states are called the same"),
        ('path: "/routes/{route}"', "path: /routes", "write names no route: put {route} into its path or body"),
        ('body: {weight: "{state}"}', "body: {weight: 0}", "write names no state"),
        ("open_for: 2m", "open_for: 2h", "open_max (3600 s) is shorter than open_for (7200 s)"),
        ("state_at: /eu/weight", "state_at: eu", "state_at"),
        ("          - {name: us, value: us-east, state_at: /us/weight, capacity: 60, p95: us_p95, max_p95: 400ms}\n", "", "needs at least two"),
    ],
)
def test_each_mistake_is_a_sentence_at_its_place(old, new, said):
    assert old in GOOD
    with pytest.raises(ServicesFileError) as caught:
        loads(GOOD.replace(old, new, 1), thorough=True)
    assert said in str(caught.value) and "levers.breaker" in str(caught.value)
