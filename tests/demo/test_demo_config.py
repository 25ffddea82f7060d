"""The services.yaml that each scenario writes is one that slotune takes."""

from __future__ import annotations

from pathlib import Path

import pytest

from demo.scenarios import SCENARIOS
from demo.stack import render_config
from tuning.services_yaml import loads


@pytest.mark.parametrize("name", sorted(SCENARIOS))
def test_config_of_every_scenario_is_valid(name: str):
    scenario = SCENARIOS[name]
    text = render_config(Path(__file__).parents[2], scenario, slo_ms=180.0, airflow_url="http://127.0.0.1:1234")
    (service,) = loads(text).service_values()
    assert service.slo.p95_ms == 180.0
    assert service.mode == "act"
    assert service.levers["batch_size"].maximum == scenario.batch_max
    assert ("replicas" in service.levers) == (scenario.serving == "replicas")
    assert "http://127.0.0.1:1234" in text
