"""The levers for servers of one's own against real ones, as docs/actuators.md writes them: `make test-servers`."""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import pytest
import requests
import yaml

from demo.processes import wait_until
from tests.fakes.actuators import FakeConnections, service
from tests.model_servers import bin_of, largest_batch, mlserver, ray_serve
from tuning import actuators
from tuning.errors import NotOwner
from tuning.model import Change

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "actuators.md").read_text(encoding="utf-8")
pytestmark = [pytest.mark.server, pytest.mark.timeout(600)]


def example(title: str) -> str:
    """A block of the page by the title beside its fence."""
    found = re.search(rf"^```\w+ {re.escape(title)}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def of_example(title: str, **here: object):
    """A service with the lever of an example; here: what a reader puts in its place."""
    lever = yaml.safe_load(example(title))["levers"]["batch_size"]
    return service("batch_size", lever.pop("actuator"), **{k: v for k, v in lever.items() if k not in ("min", "max")} | here)


def up(**new: float) -> Change:
    return Change(lever="batch_size", old={"batch_size": 4, "batch_timeout_ms": 50.0}, new={"batch_size": 16, **new})


@pytest.mark.skipif(bin_of("ray") is None, reason="no Ray Serve (scripts/model-servers)")
def test_ray_serves_user_config(tmp_path):
    with ray_serve(tmp_path) as (dashboard, application):
        ours = of_example("Ray Serve", request_timeout_s=20.0)
        lever = actuators.get("http")(FakeConnections({"ray_dashboard": dashboard}), time.time, time.sleep)

        def batch() -> int:
            return int(requests.get(application, timeout=30).text)

        assert lever.read(ours).values == {"batch_size": 4, "batch_timeout_ms": 50.0}
        assert largest_batch(batch) == 4
        receipt = lever.apply(ours, up(batch_timeout_ms=100.0), key="p:l")
        assert receipt.after == {"batch_size": 16, "batch_timeout_ms": 100.0} and receipt.took_s < 10
        wait_until(lambda: largest_batch(batch) == 16, 30, "batches of sixteen rows", every_s=1.0)
        lever.apply(ours, up(batch_timeout_ms=100.0).inverse(), key="p:u")
        wait_until(lambda: largest_batch(batch) == 4, 30, "batches of four rows", every_s=1.0)


@pytest.mark.skipif(bin_of("mlserver") is None, reason="no MLServer (scripts/model-servers)")
def test_mlservers_model_settings(tmp_path):
    with mlserver(tmp_path) as at:
        tool = tmp_path / "mlserver-batch.py"
        tool.write_text(example("mlserver-batch.py"))
        ours = of_example("MLServer")
        options = ours.levers["batch_size"].options
        words = {"/opt/mlserver-batch.py": str(tool), "/models/ranker/model-settings.json": str(tmp_path / "model-settings.json"), "python3": sys.executable}
        for command in (options["read"], options["write"]):
            command["command"] = [words.get(word, word) for word in command["command"]]
        lever = actuators.get("command")(FakeConnections({"mlserver": at}), time.time, time.sleep)
        question = {"inputs": [{"name": "x", "shape": [1, 1], "datatype": "FP32", "data": [1.0]}]}

        def batch() -> int:
            answer = requests.post(f"{at}/v2/models/ranker/infer", json=question, timeout=30)
            return int(answer.json()["outputs"][0]["data"][0])

        assert lever.read(ours).values == {"batch_size": 4, "batch_timeout_ms": 50.0}
        assert largest_batch(batch) == 4
        assert lever.apply(ours, up(batch_timeout_ms=100.0), key="p:l").after["batch_size"] == 16
        assert largest_batch(batch) == 16
        (tmp_path / "model-settings.json").write_text((tmp_path / "model-settings.json").read_text().replace("16", "12"))
        with pytest.raises(NotOwner):
            lever.apply(ours, up(batch_timeout_ms=100.0).inverse(), key="p:u")
