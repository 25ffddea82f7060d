"""Where a build runs is a description that Kubernetes accepts."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

from tuning.errors import ConfigError
from tuning.quantization.build_target import BuildTarget, build_command, pod_spec
from tuning.quantization.gates import GateLimits
from tuning.quantization.pipeline import Recipe
from tuning.services_yaml import loads

POD = BuildTarget(
    kind="pod", connection="cluster", image="slotune:1", namespace="ml", volume_claim="models", gpu=1,
    node_selector={"gpu": "l4"},
)  # fmt: skip


def test_the_pod_is_valid_and_asks_for_its_gpu() -> None:
    limits = GateLimits(max_accuracy_drop=0.02, min_agreement=0.98)
    recipe = Recipe(limits=limits, batches=(1, 16))
    command = build_command(recipe, model="m.onnx", folder="/models/.int8-builds/x", live=True)
    pod: dict[str, Any] = dict(pod_spec(POD, name="int8-ranker", command=command))
    kubernetes_validate.validate(pod, "1.30", strict=True)
    spec = pod["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    words = " ".join(spec["containers"][0]["command"])
    assert words.startswith(
        "slotune quantize /models/.int8-builds/x/m.onnx --calibration /models/.int8-builds/x/rows.npz"
    )
    assert "--max-accuracy-drop 0.02" in words and "--min-agreement 0.98" in words
    assert words.endswith("--live /models/.int8-builds/x/live.npz --batch 1 --batch 16")
    assert spec["nodeSelector"] == {"gpu": "l4"}
    assert spec["automountServiceAccountToken"] is False


def test_without_a_gpu_any_node_will_do() -> None:
    pod: dict[str, Any] = dict(
        pod_spec(POD.model_copy(update={"gpu": 0, "node_selector": {}}), name="n", command=["true"])
    )
    kubernetes_validate.validate(pod, "1.30", strict=True)
    assert "nodeSelector" not in pod["spec"]
    assert "tolerations" not in pod["spec"]


def test_what_is_missing_is_named() -> None:
    with pytest.raises(ValidationError, match="needs connection, namespace, image, volume_claim"):
        BuildTarget(kind="pod")
    with pytest.raises(ValidationError, match="needs queue"):
        BuildTarget(kind="queue")
    with pytest.raises(ValidationError, match="greater than or equal to 0"):
        BuildTarget(gpu=-1)
    with pytest.raises(ConfigError, match="needs no pod"):
        pod_spec(BuildTarget(), name="n", command=[])


def test_the_queue_is_for_queues() -> None:
    assert BuildTarget(kind="queue", queue="gpu").queue_name() == "gpu"
    assert BuildTarget(queue="gpu").queue_name() is None


SERVICES = """
services:
  - {name: a, serving: triton, selectors: {model: a}, slo: {p95: 100ms},
     levers: {precision: {connection: c, build: {kind: queue, queue: %s}}}}
  - {name: b, serving: triton, selectors: {model: b}, slo: {p95: 100ms},
     levers: {precision: {connection: c, build: %s}}}
"""


def test_services_yaml_chooses_the_place() -> None:
    settings = loads(
        SERVICES % ("gpu", "{kind: pod, connection: k, namespace: n, image: i, volume_claim: v, deadline: 2h}")
    )
    assert settings.build_queue() == "gpu"
    build = settings.service_values()[1].levers["precision"].options["build"]
    assert BuildTarget.model_validate(build).deadline_s == 7200.0


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ("{kind: queue, queue: other}", "different queues to build INT8 on .gpu, other."),
        ("{kind: pod, image: i}", "a build in a pod needs connection, namespace, volume_claim"),
        ("{kind: pods}", "'pods' is not one of worker, queue, pod"),
        ("{kind: pod, connection: 'http://x', namespace: n, image: i, volume_claim: v}", "name a connection"),
        ("{gpus: 1}", "did you mean 'gpu'"),
    ],
)
def test_a_place_that_cannot_be_used_is_a_sentence(second: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        loads(SERVICES % ("gpu", second))
