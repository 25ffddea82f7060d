"""The services.yaml that each scenario writes is one that slotune takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.scenarios import SCENARIOS
from demo.stack import render_config
from tuning.services_yaml import loads

VARIANTS = {"full": 0.939, "small": 0.9203, "ratio": 0.12, "rows": 4000}


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_config_of_every_scenario_is_valid(name: str):
    scenario = SCENARIOS[name]
    files = {"onnx": "/m/ranker.onnx", "calibration": "/c.npz", "repository": "/m/repository"}
    text = render_config(Path(__file__).parents[2], scenario, 180.0, "http://127.0.0.1:1234", files, VARIANTS)
    (service,) = loads(text).service_values()
    if scenario.language is None:
        assert service.slo.p95_ms == 180.0
    else:
        assert (service.slo.p95_ms, service.slo.ttft_p95_ms) == (None, scenario.language.ttft_ms)
    assert service.mode == scenario.mode
    assert service.levers["batch_size"].maximum == scenario.batch_max
    assert ("replicas" in service.levers) == (scenario.serving == "replicas")
    assert ("variant" in service.levers) == scenario.variant
    assert ("admission" in service.levers) == scenario.admission
    assert ("precision" in service.levers) == (scenario.calibration is not None)
    if scenario.calibration:
        lever = service.levers["precision"]
        assert {name: lever.options[name] for name in files} == files
        assert service.levers["batch_size"].minimum == service.levers["batch_size"].maximum == scenario.batch_size
    assert "http://127.0.0.1:1234" in text
