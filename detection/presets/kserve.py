"""KServe's Python runtimes: a histogram of the prediction's duration per model. (Its Triton runtime is `triton`.)

Errors are counted in front of the runtime: in Knative by the queue proxy, `revision_app_request_count` with the label
`response_code_class`; `metric.requests` names another counter with that label.
"""

from __future__ import annotations

from detection.presets._preset import (
    Preset,
    increases,
    instances,
    mean_ms,
    native_histogram,
    share,
    total_rate,
    whole_requests,
)

PRESET = Preset(
    name="kserve",
    title="KServe (Python runtimes)",
    versions="0.10 to 0.16; errors and queue from Knative before its OpenTelemetry names",
    replica_label="instance",
    presence="$(duration)_count{$sel}",
    signals={
        **whole_requests(),
        "qps": total_rate("$(duration)_count"),
        "pre_ms": mean_ms("$(pre)"),
        "compute_ms": mean_ms("$(duration)"),
        "post_ms": mean_ms("$(post)"),
        "error_rate": share("$(requests)", 'response_code_class="5xx"', "$(requests)"),
        "queue_depth": "sum by ($by) ($(queue_depth){$sel})",
        "replicas": instances("$(duration)_count{$sel}"),
    },
    served=total_rate("$(requests)"),
    version_label="revision_name",
    buckets=increases("$(duration)_bucket"),
    native=native_histogram("$(duration)"),
    names={
        "duration": "request_predict_seconds",
        "pre": "request_preprocess_seconds",
        "post": "request_postprocess_seconds",
        "requests": "revision_app_request_count",
        "queue_depth": "revision_queue_depth",
    },
)
