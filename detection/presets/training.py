"""Training jobs (`kind: training`): iterations, the wait for data and the loss; every name can be overridden.

`Service.labels` overrides names as `metric.<name>`: `iteration` and `data_wait` are histograms or summaries of one
iteration's time and of its wait for the next batch of data (their _sum and _count are read), `loss` is a gauge, the GPU
names are those of dcgm-exporter. What is not in seconds has its unit beside it: {"unit.iteration": "ms"}. Of several
workers the mean counts, and iterations are those of one.
"""

from __future__ import annotations

from detection.presets._preset import Preset, mean_ms

PRESET = Preset(
    versions="any",
    replica_label="instance",
    presence="$(iteration)_count{$sel}",
    name="training",
    title="a training job",
    signals={
        "iteration_ms": mean_ms("$(iteration)", "$(iteration_ms)"),
        "iterations_per_s": "avg by ($by) (rate($(iteration)_count{$sel}[$w]))",
        "data_wait_ms": mean_ms("$(data_wait)", "$(data_wait_ms)"),
        "loss": "avg by ($by) ($(loss){$sel})",
        "gpu_util": "avg by ($by) ($(gpu_util){$sel}) / 100",
        "gpu_memory": (
            "sum by ($by) ($(gpu_memory_used){$sel}) / "
            "(sum by ($by) ($(gpu_memory_used){$sel}) + sum by ($by) ($(gpu_memory_free){$sel}))"
        ),
    },
    names={
        "iteration": "training_iteration_seconds",
        "data_wait": "training_data_wait_seconds",
        "loss": "training_loss",
        "gpu_util": "DCGM_FI_DEV_GPU_UTIL",
        "gpu_memory_used": "DCGM_FI_DEV_FB_USED",
        "gpu_memory_free": "DCGM_FI_DEV_FB_FREE",
    },
    units={"iteration": "s", "data_wait": "s"},
)
