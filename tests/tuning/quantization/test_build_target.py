"""Where a build runs is a description that Kubernetes accepts."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
from pydantic import ValidationError

from tuning.errors import ConfigError
from tuning.quantization.build_target import BuildTarget, build_command, pod_spec

POD = BuildTarget(
    kind="pod", image="slotune:1", namespace="ml", volume_claim="models", gpu=1, node_selector={"gpu": "l4"}
)


def test_the_pod_is_valid_and_asks_for_its_gpu() -> None:
    command = build_command(
        model="/models/m.onnx",
        calibration="/models/c.npz",
        out="/models/o",
        target="tensorrt",
        compute_capability="8.9",
    )
    pod: dict[str, Any] = dict(pod_spec(POD, name="int8-ranker", command=command))
    kubernetes_validate.validate(pod, "1.30", strict=True)
    spec = pod["spec"]
    assert spec["containers"][0]["resources"]["limits"]["nvidia.com/gpu"] == "1"
    assert spec["containers"][0]["command"][-2:] == ["--compute-capability", "8.9"]
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
    with pytest.raises(ValidationError, match="needs image, namespace, volume_claim"):
        BuildTarget(kind="pod")
    with pytest.raises(ValidationError, match="needs queue"):
        BuildTarget(kind="queue")
    with pytest.raises(ValidationError, match="gpu must be 0 or more"):
        BuildTarget(gpu=-1)
    with pytest.raises(ConfigError, match="needs no pod"):
        pod_spec(BuildTarget(), name="n", command=[])


def test_the_queue_is_for_queues() -> None:
    assert BuildTarget(kind="queue", queue="gpu").queue_name() == "gpu"
    assert BuildTarget(queue="gpu").queue_name() is None
