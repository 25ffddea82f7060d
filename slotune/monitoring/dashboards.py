"""Grafana dashboards from the normalised signals: the same five pages for every serving system.

Each panel asks slotune's own metrics (`slotune_signal{service, signal}` and its kin), so a dashboard needs no name of
any server's metric. Anomalies are red regions, changes are marks, and the SLO is the line that services.yaml names.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from detection.signal import CLASSES, Signal, SignalClass
from detection.signals import SIGNALS

Json = dict[str, Any]
SOURCE = {"type": "prometheus", "uid": "prometheus"}
UNITS = {"ms": "ms", "1/s": "reqps", "share": "percentunit"}
RESOLVED = (
    'sum(increase(slotune_attempts_total{verdict="improved"}[7d])) / sum(increase(slotune_incidents_total[7d]))'
)
ATTEMPTS = "sum by (lever, verdict) (increase(slotune_attempts_total[1d]))"
FOUND = 'count by (service) (slotune_signal{service=~"$service"})'
ERROR = "slotune_prediction_error_ratio"
FALSE_ALARMS = 'increase(slotune_false_alarms_total{service=~"$service"}[7d])'
PAGES: Mapping[str, tuple[str, tuple[str, ...]]] = {
    "model": ("Model", ("accuracy", "agreement", "load_failures")),
    "inference": (
        "Inference",
        ("p50_ms", "p95_ms", "p99_ms", "mean_ms", "qps", "error_rate", "queue_ms", "queue_depth", "batch_ms",
         "rows_per_batch", "batch_size"),
    ),
    "resources": (
        "Resources",
        ("busy", "cpu", "memory_gb", "network_mb_s", "gpu_util", "gpu_memory", "gpu_power_w", "gpu_temperature_c",
         "replicas"),
    ),
}  # fmt: skip
"""Page -> (title, signals). A signal that a service does not have leaves its panel empty for that service."""


OWN_PAGES: Mapping[SignalClass, str] = {"model": "model", "inference": "inference", "resource": "resources"}
"""The pages that signals of one's own join by their class; those of data join the page of data."""


def dashboards(own: Sequence[Signal] = ()) -> dict[str, Json]:
    """File name -> dashboard, as Grafana imports it. own: signals that services define; those of class business have a
    page of their own, the others join the page of their class."""
    of = {kind: [_panel(signal) for signal in own if signal.kind == kind] for kind in CLASSES}
    made = {"home": _home()}
    made |= {
        name: _page(name, *page, [p for kind, at in OWN_PAGES.items() if at == name for p in of[kind]])
        for name, page in PAGES.items()
    }
    made["data"] = _data(of["data"])
    if of["business"]:
        made["business"] = _dashboard("business", "slotune: business", of["business"])
    return {f"slotune-{name}.json": body for name, body in made.items()}


def as_text(dashboard: Json) -> str:
    return json.dumps(dashboard, indent=1, ensure_ascii=False) + "\n"


def _home() -> Json:
    tiles = [
        _stat("Services over their SLO", "sum(slotune_slo_broken) or vector(0)", red_above=1),
        _stat("Open incidents", "sum(slotune_incidents_open) or vector(0)", red_above=1),
        _stat("Changes in force", "sum(slotune_changes_in_force)"),
        _stat("Resolved without a person, 7 days", RESOLVED, unit="percentunit"),
        _stat("Since the last sweep", "time() - slotune_sweep_timestamp_seconds", unit="s", red_above=900),
    ]
    charts = [
        _chart(
            "P95 over its SLO (1 is the limit)",
            [(f"{_asked('p95_ms')} / 1000 / on(service) slotune_slo_p95_seconds", "{{service}}")],
            limit=1.0,
        ),
        _signal("qps"),
        _signal("error_rate"),
        _chart("What came of attempts, a day", [(ATTEMPTS, "{{lever}}: {{verdict}}")]),
    ]
    return _dashboard("home", "slotune: home", [*tiles, *charts])


def _page(name: str, title: str, signals: Sequence[str], more: Sequence[Json]) -> Json:
    return _dashboard(name, f"slotune: {title.lower()}", [*(_signal(signal) for signal in signals), *more])


def _asked(signal: str) -> str:
    return f'slotune_signal{{signal="{signal}",service=~"$service"}}'


def _signal(name: str) -> Json:
    signal = SIGNALS[name]
    asked = [(_asked(name), "{{service}}")]
    if name == "p95_ms":
        asked.append(('slotune_slo_p95_seconds{service=~"$service"} * 1000', "SLO of {{service}}"))
    return _chart(signal.title[:1].upper() + signal.title[1:], asked, unit=UNITS.get(signal.unit, "short"))


def _panel(signal: Signal) -> Json:
    """Of a signal of one's own."""
    title = signal.title[:1].upper() + signal.title[1:]
    unit = UNITS.get(signal.unit, "short")
    return _chart(title, [(_asked(signal.name), "{{service}}")], unit=unit)


def _data(more: Sequence[Json]) -> Json:
    """What slotune can see, and how good its own numbers are."""
    return _dashboard(
        "data",
        "slotune: data",
        [
            _stat("Services that cannot be read", "count(slotune_unreadable) or vector(0)", red_above=1),
            _stat("Reports not sent", "slotune_reports_unsent", red_above=1),
            _chart("Signals found per service", [(FOUND, "{{service}}")]),
            _chart("Error of predictions (median)", [(ERROR, "{{lever}}")], unit="percentunit"),
            _chart("False alarms, a week", [(FALSE_ALARMS, "{{service}}")]),
            *more,
        ],
    )


def _dashboard(name: str, title: str, panels: Sequence[Json]) -> Json:
    return {
        "uid": f"slotune-{name}",
        "title": title,
        "tags": ["slotune"],
        "schemaVersion": 39,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "templating": {"list": [_service_variable()]},
        "annotations": {"list": list(_annotations())},
        "links": [{"type": "dashboards", "tags": ["slotune"], "title": "slotune", "keepTime": True}],
        "panels": _placed(panels),
    }


def _service_variable() -> Json:
    query = "label_values(slotune_slo_p95_seconds, service)"
    return {
        "name": "service",
        "label": "Service",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "service"},
        "definition": query,
        "refresh": 2,
        "includeAll": True,
        "multi": True,
        "allValue": ".*",
        "current": {"text": "All", "value": "$__all"},
    }


def _annotations() -> Iterable[Json]:
    marks = (
        ("Anomalies", 'slotune_anomaly{service=~"$service"} == 1', "red", "{{service}}: {{signal}} ({{tier}})"),
        ("Changes", 'slotune_change{service=~"$service"} == 1', "blue", "{{service}}: {{from}} -> {{to}}"),
    )
    for name, expr, colour, title in marks:
        yield {
            "name": name,
            "datasource": SOURCE,
            "enable": True,
            "expr": expr,
            "iconColor": colour,
            "titleFormat": title,
            "step": "30s",
        }


def _placed(panels: Sequence[Json]) -> list[Json]:
    """Panels in rows on Grafana's grid of 24 columns: tiles first, then charts two in a row."""
    tiles = [p for p in panels if p["type"] == "stat"]
    charts = [p for p in panels if p["type"] != "stat"]
    placed, width = [], 24 // max(1, len(tiles))
    for index, panel in enumerate(tiles):
        placed.append({"id": index + 1, "gridPos": {"x": index * width, "y": 0, "w": width, "h": 4}, **panel})
    top = 4 if tiles else 0
    for index, panel in enumerate(charts):
        place = {"x": 12 * (index % 2), "y": top + 8 * (index // 2), "w": 12, "h": 8}
        placed.append({"id": len(tiles) + index + 1, "gridPos": place, **panel})
    return placed


def _stat(title: str, expr: str, *, unit: str = "short", red_above: float | None = None) -> Json:
    steps: list[Json] = [{"color": "green", "value": None}]
    if red_above is not None:
        steps.append({"color": "red", "value": red_above})
    defaults = {"unit": unit, "thresholds": {"mode": "absolute", "steps": steps}}
    return {
        "type": "stat",
        "title": title,
        "datasource": SOURCE,
        "targets": [_target(expr, "", 0)],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}, "colorMode": "value"},
    }


def _chart(title: str, asked: Sequence[tuple[str, str]], *, unit: str = "short", limit: float | None = None) -> Json:
    defaults: Json = {"unit": unit, "custom": {"lineWidth": 2, "fillOpacity": 5, "spanNulls": False}, "min": 0}
    if limit is not None:
        steps = [{"color": "transparent", "value": None}, {"color": "red", "value": limit}]
        defaults |= {"thresholds": {"mode": "absolute", "steps": steps}}
        defaults["custom"] |= {"thresholdsStyle": {"mode": "line"}}
    return {
        "type": "timeseries",
        "title": title,
        "datasource": SOURCE,
        "targets": [_target(expr, legend, index) for index, (expr, legend) in enumerate(asked)],
        "fieldConfig": {"defaults": defaults, "overrides": [_dashed_slo()]},
        "options": {"legend": {"displayMode": "list", "placement": "bottom"}, "tooltip": {"mode": "multi"}},
    }


def _target(expr: str, legend: str, index: int) -> Json:
    return {"refId": chr(ord("A") + index), "expr": expr, "legendFormat": legend, "datasource": SOURCE}


def _dashed_slo() -> Json:
    return {
        "matcher": {"id": "byRegexp", "options": "/^SLO of /"},
        "properties": [
            {"id": "color", "value": {"mode": "fixed", "fixedColor": "red"}},
            {"id": "custom.lineStyle", "value": {"fill": "dash", "dash": [8, 6]}},
            {"id": "custom.fillOpacity", "value": 0},
        ],
    }
