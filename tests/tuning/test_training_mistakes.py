"""A training job in services.yaml: what it cannot have is refused with a sentence, and a running loop never takes it up."""

from __future__ import annotations

import jsonschema
import pytest
import yaml

from slotune.schema import services_schema
from tuning.services_yaml import ServicesFileError, loads

GOOD = """\
services:
  - name: train-ranker
    kind: training
    serving: training
    selectors: {job: train-ranker}
    slo: {iteration: 500ms, for: 5m}
    labels: {metric.loss: my_loss}
"""
LEVERS = "    levers:\n      replicas: {actuator: kubernetes, connection: c, namespace: n, target: t, min: 1, max: 4}\n"


def test_it_is_read_and_only_watched():
    (service,) = loads(GOOD, thorough=True).service_values()
    assert (service.kind, service.mode, service.levers) == ("training", "observe", {})
    assert service.slo.main.signal == "iteration_ms" and service.slo.main.limit_ms == 500.0
    jsonschema.validate(yaml.safe_load(GOOD), services_schema())


@pytest.mark.parametrize(
    ("old", "new", "key", "said"),
    [
        ("    labels:", LEVERS + "    labels:", "levers.replicas", "only watched, and nothing of it is ever changed"),
        ("    labels:", "    mode: act\n    labels:", "mode", "write mode: observe instead of act"),
        ("iteration: 500ms", "p95: 500ms", "slo", "promises no iteration"),
        ("iteration: 500ms", "iteration: 500ms, p95: 1s", "slo.p95", "a training job answers none"),
        ("    kind: training\n", "", "slo.iteration", "write kind: training, or p95 instead"),
        ("    kind: training\n", "", "serving", "the preset of training jobs: write kind: training"),
        ("kind: training\n", "kind: trainings\n", "kind", "inference"),
        ("{iteration: 500ms, for: 5m}", "{for: 5m}", "slo.p95", "iteration of a training job"),
    ],
)
def test_each_mistake_is_one_sentence_at_its_key(old, new, key, said):
    with pytest.raises(ServicesFileError) as told:
        loads(GOOD.replace(old, new, 1), thorough=True)
    assert f"services[0].{key}" in str(told.value) and said in str(told.value)


def test_a_loop_that_runs_with_such_a_file_has_no_lever_for_the_job():
    text = GOOD.replace("    labels:", LEVERS + "    mode: act\n    labels:")
    (service,) = loads(text).service_values()
    assert service.levers == {} and service.mode == "observe"
