"""What the machine does beside the server: CPU, memory, network and GPU from node-exporter, cAdvisor and DCGM.

Their series carry other labels than a model server's, so a service names those that single out its machine, container
or GPU; each gives one series. Sums are over what is selected: of two containers the memory of both.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from detection.outside_text import quoted


@dataclass(frozen=True)
class Exporter:
    """signals: PromQL by signal; `$res` becomes the matchers of the service's labels (ending in a comma unless empty),
    `$pod` the same without `container` (the network belongs to the pod), `$w` the rate window."""

    name: str
    title: str
    signals: Mapping[str, str]


def _network(received: str, sent: str, matchers: str) -> str:
    return f"1e-6 * (sum(rate({received}{{{matchers}}}[$w])) + sum(rate({sent}{{{matchers}}}[$w])))"


_CONTAINER = 'container!="",container!="POD"'
_QUOTA = f"container_spec_cpu_quota{{$res{_CONTAINER}}} / container_spec_cpu_period{{$res{_CONTAINER}}}"
_CORES = f"sum(rate(container_cpu_usage_seconds_total{{$res{_CONTAINER}}}[$w]))"

EXPORTERS: dict[str, Exporter] = {
    exporter.name: exporter
    for exporter in (
        Exporter(
            "cadvisor",
            "cAdvisor (in every kubelet): containers; `cpu` is the share of their CPU limit, absent without one",
            {
                "cpu": f"{_CORES} / sum({_QUOTA})",
                "memory_gb": f"1e-9 * sum(container_memory_working_set_bytes{{$res{_CONTAINER}}})",
                "network_mb_s": _network(
                    "container_network_receive_bytes_total", "container_network_transmit_bytes_total", "$pod"
                ),
            },
        ),
        Exporter(
            "dcgm",
            "NVIDIA's DCGM exporter: GPUs; the hottest one counts, power is of all of them",
            {
                "gpu_util": "1e-2 * avg(DCGM_FI_DEV_GPU_UTIL{$res})",
                "gpu_memory": (
                    "sum(DCGM_FI_DEV_FB_USED{$res}) / (sum(DCGM_FI_DEV_FB_USED{$res}) + sum(DCGM_FI_DEV_FB_FREE{$res}))"
                ),
                "gpu_power_w": "sum(DCGM_FI_DEV_POWER_USAGE{$res})",
                "gpu_temperature_c": "max(DCGM_FI_DEV_GPU_TEMP{$res})",
            },
        ),
        Exporter(
            "node_exporter",
            "node-exporter: whole machines",
            {
                "cpu": '1 - avg(rate(node_cpu_seconds_total{$resmode="idle"}[$w]))',
                "memory_gb": "1e-9 * sum(node_memory_MemTotal_bytes{$res} - node_memory_MemAvailable_bytes{$res})",
                "network_mb_s": _network(
                    "node_network_receive_bytes_total", "node_network_transmit_bytes_total", '$resdevice!="lo"'
                ),
            },
        ),
    )
}


def queries_of(wanted: Mapping[str, Mapping[str, str]]) -> dict[str, str]:
    """PromQL by signal, of the exporters that a service names with their labels. Where two show the same signal the one
    that is named first counts. Names that are none are passed over: `problems` says so."""
    found: dict[str, str] = {}
    for name, labels in wanted.items():
        if name not in EXPORTERS or problem(labels):
            continue
        pod = {key: value for key, value in labels.items() if key != "container"}
        for signal, query in EXPORTERS[name].signals.items():
            found.setdefault(signal, query.replace("$res", _matchers(labels)).replace("$pod", _matchers(pod)))
    return found


def problem(labels: Mapping[str, str]) -> str | None:
    """What is wrong with the labels of an exporter."""
    if not labels:
        return "names no label: write those that single out the machine, container or GPU of this service"
    for key, value in labels.items():
        if not key.isidentifier() or "$" in value:
            return f"{key}: {value} is no label that can single out series"
    return None


def _matchers(labels: Mapping[str, str]) -> str:
    return "".join(f"{key}={quoted(value)}," for key, value in sorted(labels.items()))
