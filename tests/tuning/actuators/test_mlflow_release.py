"""The release lever of MLflow's registry: against its REST API as a fake speaks it, and against a real server."""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import Any

import pytest

from demo import web
from demo.processes import Child, free_port, wait_until
from tests import model_servers
from tests.fakes.actuators import FakeConnections, FakeTime, service
from tests.fakes.mlflow import mlflow
from tuning.actuators.mlflow_release import MlflowRelease
from tuning.errors import ControlRefused, ControlUnreachable
from tuning.model import Change

pytestmark = pytest.mark.server
BACK = Change(lever="release", old={"version": "7"}, new={"version": "6"})


def lever_on(url: str, **options: object):
    time = FakeTime()
    lever = MlflowRelease(FakeConnections({"c": url}), time.clock, time.sleep)
    return lever, service("release", "mlflow_release", connection="c", **({"request_timeout_s": 5.0} | options))


def logged(accuracy: float, dataset: str) -> dict[str, object]:
    return {
        "data": {"metrics": [{"key": "accuracy", "value": accuracy}, {"key": "odd", "value": "NaN"}]},
        "inputs": {"dataset_inputs": [{"dataset": {"name": dataset}}]},
    }


def test_a_version_is_told_with_what_its_run_and_the_one_before_it_logged():
    with mlflow() as registry:
        registry.runs.update(run7=logged(0.81, "shop-2026-11"), run6=logged(0.93, "shop-2026-10"))
        lever, ranker = lever_on(registry.url)
        setting = lever.read(ranker)
        assert setting.values == {"version": "7"}
        assert setting.facts["note"] == "version 7: accuracy 0.81, on shop-2026-11; version 6: accuracy 0.93, on shop-2026-10"
        registry.runs.clear()
        assert lever.read(ranker).facts == {}


def test_the_way_back_sets_the_alias_and_reads_it_back():
    with mlflow() as registry:
        lever, ranker = lever_on(registry.url)
        receipt = lever.apply(ranker, BACK, key="p:release")
        assert registry.aliases == {"champion": "6"} and receipt.applied and receipt.changed
        again = lever.apply(ranker, BACK, key="p:release")
        assert again.applied and not again.changed


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"alias": "production"}, "MLflow shows no alias 'production' of the registered model 'ranker'"),
        ({"model": "shop"}, "MLflow shows no alias 'champion' of the registered model 'shop'"),
    ],
)
def test_what_is_not_there_is_one_sentence(options, said):
    with mlflow() as registry:
        lever, ranker = lever_on(registry.url, **options)
        with pytest.raises(ControlRefused, match=said) as caught:
            lever.read(ranker)
        assert "\n" not in str(caught.value)


def test_a_registry_that_is_down_is_one_sentence():
    lever, ranker = lever_on("http://127.0.0.1:9")
    with pytest.raises(ControlUnreachable, match=r"127\.0\.0\.1:9"):
        lever.read(ranker)


@pytest.mark.parametrize("missing", ["gone", "not ready"])
def test_an_alias_is_never_set_to_a_version_that_cannot_serve(missing):
    with mlflow() as registry:
        if missing == "gone":
            del registry.versions["6"]
        else:
            registry.versions["6"]["status"] = "FAILED_REGISTRATION"
        lever, ranker = lever_on(registry.url)
        with pytest.raises(ControlRefused, match="not found" if missing == "gone" else "FAILED_REGISTRATION"):
            lever.apply(ranker, BACK, key="p:release")
        assert registry.aliases == {"champion": "7"}


@pytest.mark.parametrize("shown", [None, True, "seven", {}])
def test_an_answer_that_names_no_version_is_a_sentence(shown):
    with mlflow() as registry:
        registry.aliases["champion"] = "9"
        registry.versions["9"] = {"version": shown}
        lever, ranker = lever_on(registry.url)
        with pytest.raises(ControlRefused, match="shows no version for the alias 'champion'"):
            lever.read(ranker)


@pytest.fixture
def real(tmp_path):
    """The address of a real MLflow server whose registry holds three versions of `ranker`, the last one the champion."""
    programs, port = model_servers.bin_of("mlflow"), free_port()
    if programs is None:
        pytest.skip("no MLflow here: scripts/model-servers installs it")
    address = f"http://127.0.0.1:{port}"
    options = ["server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{tmp_path}/mlflow.db", "--default-artifact-root", str(tmp_path)]  # fmt: skip
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    with ExitStack() as stack:
        server = Child("MLflow", [str(programs / "python"), "-m", "mlflow", *options], tmp_path / "mlflow.log", env=environment)
        stack.callback(server.stop, 10.0)
        wait_until(lambda: web.answers(f"{address}/health"), 120.0, "MLflow starting")

        def call(what: str, body: object) -> Any:
            return web.call(f"{address}/api/2.0/mlflow/{what}", body, timeout_s=60.0)

        call("registered-models/create", {"name": "ranker"})
        for accuracy in (0.92, 0.93, 0.81):
            run = call("runs/create", {"experiment_id": "0", "start_time": 1})["run"]["info"]["run_id"]
            call("runs/log-metric", {"run_id": run, "key": "accuracy", "value": accuracy, "timestamp": 1})
            dataset = {"name": f"shop-{accuracy}", "digest": "d", "source_type": "local", "source": "{}"}
            call("runs/log-inputs", {"run_id": run, "datasets": [{"dataset": dataset, "tags": []}]})
            call("model-versions/create", {"name": "ranker", "source": f"runs:/{run}/model", "run_id": run})
        call("registered-models/alias", {"name": "ranker", "alias": "champion", "version": "3"})
        yield address


def test_a_real_server_has_its_alias_set_back_and_tells_what_was_logged(real):
    lever, ranker = lever_on(real, request_timeout_s=60.0)
    setting = lever.read(ranker)
    assert setting.values == {"version": "3"}
    assert setting.facts["note"] == "version 3: accuracy 0.81, on shop-0.81; version 2: accuracy 0.93, on shop-0.93"
    back = Change(lever="release", old={"version": "3"}, new={"version": "2"})
    assert lever.apply(ranker, back, key="p:release").applied and lever.read(ranker).values == {"version": "2"}
    gone = Change(lever="release", old={"version": "2"}, new={"version": "9"})
    with pytest.raises(ControlRefused, match="9"):
        lever.apply(ranker, gone, key="q:release")
    assert lever.read(ranker).values == {"version": "2"}
    other, unknown = lever_on(real, alias="production", request_timeout_s=60.0)
    with pytest.raises(ControlRefused, match="no alias 'production' of the registered model 'ranker'"):
        other.read(unknown)
