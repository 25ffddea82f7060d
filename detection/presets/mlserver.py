"""MLServer (Seldon): one histogram for all models of a server behind the V2 REST route; counters per model.

The histogram's `path` is the route's template, so percentiles are the server's, not a model's: select by a label that
tells servers apart (instance, job, pod) and serve one model each where the SLO is a model's. What waits is the mean
length of the batching queue as requests arrive.
"""

from __future__ import annotations

from detection.presets._preset import Preset, instances, ratio, total_rate

_ROUTE = 'path=~"/v2/models/.+/infer"'
_LATENCY = "rest_server_request_duration_seconds"
_OK = total_rate("model_infer_request_success_total")
_FAILED = total_rate("model_infer_request_failure_total")


def _quantile_ms(quantile: float) -> str:
    rates = f"sum by ($by le) (rate({_LATENCY}_bucket{{$sel{_ROUTE}}}[$w]))"
    return f"1000 * histogram_quantile({quantile:g}, {rates})"


PRESET = Preset(
    name="mlserver",
    title="MLServer",
    versions="1.3 to 1.7",
    replica_label="instance",
    presence="model_infer_request_success_total{$sel}",
    signals={
        "p50_ms": _quantile_ms(0.5),
        "p95_ms": _quantile_ms(0.95),
        "p99_ms": _quantile_ms(0.99),
        "mean_ms": "1000 * " + ratio(total_rate(f"{_LATENCY}_sum", _ROUTE), total_rate(f"{_LATENCY}_count", _ROUTE)),
        "qps": f"{_OK} + ({_FAILED} or 0 * {_OK})",
        "error_rate": ratio(f"{_FAILED} or 0 * {_OK}", f"{_OK} + ({_FAILED} or 0 * {_OK})"),
        "queue_depth": ratio(total_rate("batch_request_queue_sum"), total_rate("batch_request_queue_count")),
        "replicas": instances("model_infer_request_success_total{$sel}"),
    },
    served=_OK,
    buckets=f"sum by ($by le) (increase({_LATENCY}_bucket{{$sel{_ROUTE}}}[$w]))",
)
