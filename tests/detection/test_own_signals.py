"""Signals that a service defines: read, watched, shown, and off one by one where something is wrong with them."""

from __future__ import annotations

import contextlib
import time

import numpy as np
import pytest

from detection import own_signals, pipeline, presets
from detection.drift import DAY_S
from detection.errors import SlotuneError
from detection.model import MetricWindow, OwnSignal, Service, Slo, Span
from detection.own_signals import problems
from detection.settings import DetectionSettings
from detection.sources.prometheus import PrometheusSource
from slotune.monitoring.dashboards import dashboards
from slotune.signal_table import rows
from tests.prometheus_pages import scraped
from tuning.loop.learn import drifted
from tuning.loop.watch import signals_off
from tuning.services_yaml import ServicesFileError, loads

FILE = """
services:
  - name: ranker
    serving: generic_histogram
    selectors: {job: ranker}
    slo: {p95: 150ms}
    exporters: {cadvisor: {namespace: prod, container: ranker}, dcgm: {Hostname: gpu-7}}
    signals:
      conversion: {class: business, promql: "avg by ($by) (shop_conversion{$sel})", unit: share, worse: down, floor: 0.5%}
      orders: {class: business, promql: "sum(rate(orders_total[$w]))", unit: 1/s, worse: down, title: orders}
"""
CONVERSION = OwnSignal(promql="avg by ($by) (x{$sel})", kind="business", unit="share", worse="down", floor=0.005)


def changed(**update: object) -> OwnSignal:
    return CONVERSION.model_copy(update=update)


@pytest.mark.parametrize(
    ("name", "own", "key", "said"),
    [
        ("p95_ms", CONVERSION, "", "'p95_ms' is a signal of slotune: give yours another name"),
        ("orders/s", CONVERSION, "", "is no name of a signal"),
        ("orders", changed(kind="busines"), "class", "there is no class 'busines'; known: model, inference"),
        ("orders", changed(worse="lower"), "worse", "'lower' is no direction; known: up, down, both, none"),
        ("orders", changed(promql="sum(rate(x[5m])"), "promql", "there is a ( that nothing closes"),
        ("orders", changed(promql="sum(x})"), "promql", "there is a } that nothing opens"),
        ("orders", changed(promql='sum(x{a="b})'), "promql", 'a text that begins with " does not end'),
        ("orders", changed(promql="sum(x{$sel})"), "promql", "has $sel and no $by"),
        ("orders", changed(promql="  "), "promql", "is empty"),
        ("orders", changed(promql="avg by ($by) ($(durationn){$sel})"), "promql", "has the place $(durationn)"),
    ],
)
def test_what_is_wrong_is_one_sentence(name, own, key, said):
    ((found_key, sentence),) = problems(name, own, presets.get("generic_histogram").query_problem)
    assert found_key == key and said in sentence


def test_brackets_within_texts_are_none():
    promql = r"""sum(x{a=")\"(", b='}'}) or sum(y{c=`\`})"""
    assert not list(problems("orders", changed(promql=promql), lambda _: None))


@pytest.mark.parametrize(
    ("was", "becomes", "line", "said"),
    [
        ("class: business, promql: \"avg", "class: shop, promql: \"avg", 9, "signals.conversion.class: there is no class 'shop'"),
        ("conversion: {", "qps: {", 9, "signals.qps: 'qps' is a signal of slotune"),
        ("orders: {class", "conversion: {class", 10, "is given twice"),
        ("worse: down, title", "wors: down, title", 10, "unknown key"),
        ("floor: 0.5%", "floor: some", 9, "must be a number"),
        ("cadvisor:", "cadviser:", 7, "there is no exporter 'cadviser'; did you mean 'cadvisor'"),
        ("{Hostname: gpu-7}", "{}", 7, "names no label"),
    ],
)  # fmt: skip
def test_check_names_it_with_its_line(was, becomes, line, said):
    with pytest.raises(ServicesFileError) as caught:
        loads(FILE.replace(was, becomes, 1), thorough=True)
    assert f":{line}: " in str(caught.value) and said in str(caught.value)


def test_one_name_means_one_thing():
    other = FILE.split("services:\n")[1].replace("name: ranker", "name: shop").replace("job: ranker", "job: shop")
    with pytest.raises(ServicesFileError, match="'orders' has another class, unit or direction at 'ranker'"):
        loads(FILE + other.replace("unit: 1/s", "unit: 1/h"), thorough=True)
    assert loads(FILE + other, thorough=True)


def test_a_query_without_the_places_is_given_to_its_service_alone():
    (service,) = loads(FILE, thorough=True).service_values()
    found = presets.of(service).signals
    assert found["orders"] == 'label_replace(sum(rate(orders_total[$w])), "job", "ranker", "", "")'
    assert found["conversion"] == "avg by ($by) (shop_conversion{$sel})"
    assert 'namespace="prod"' in found["memory_gb"] and "container=" not in found["network_mb_s"].replace("container_", "")
    assert found["gpu_util"].startswith("label_replace(1e-2 * avg(DCGM_FI_DEV_GPU_UTIL")


def page(seconds: float) -> str:
    served = 20 * seconds
    return "\n".join(
        [
            f'http_request_duration_seconds_bucket{{le="0.1"}} {served}',
            f'http_request_duration_seconds_bucket{{le="+Inf"}} {served}',
            f"http_request_duration_seconds_sum {0.05 * served}",
            f"http_request_duration_seconds_count {served}",
            "shop_conversion 0.031",
            f"orders_total{{}} {3 * seconds}",
            'two{kind="a"} 1\ntwo{kind="b"} 2',
            f'container_cpu_usage_seconds_total{{namespace="prod",pod="p",container="ranker"}} {0.5 * seconds}',
            f'container_cpu_usage_seconds_total{{namespace="prod",pod="p",container=""}} {9 * seconds}',
            'container_spec_cpu_quota{namespace="prod",pod="p",container="ranker"} 200000',
            'container_spec_cpu_period{namespace="prod",pod="p",container="ranker"} 100000',
            'container_memory_working_set_bytes{namespace="prod",pod="p",container="ranker"} 3e9',
            f'container_network_receive_bytes_total{{namespace="prod",pod="p",interface="eth0"}} {2e6 * seconds}',
            f'container_network_transmit_bytes_total{{namespace="prod",pod="p",interface="eth0"}} {1e6 * seconds}',
            'DCGM_FI_DEV_GPU_UTIL{Hostname="gpu-7",gpu="0"} 80\nDCGM_FI_DEV_GPU_UTIL{Hostname="other",gpu="0"} 10',
            'DCGM_FI_DEV_FB_USED{Hostname="gpu-7"} 30000\nDCGM_FI_DEV_FB_FREE{Hostname="gpu-7"} 10000',
            'DCGM_FI_DEV_POWER_USAGE{Hostname="gpu-7"} 310',
            'DCGM_FI_DEV_GPU_TEMP{Hostname="gpu-7",gpu="0"} 61\nDCGM_FI_DEV_GPU_TEMP{Hostname="gpu-7",gpu="1"} 74',
            f'node_cpu_seconds_total{{mode="idle",cpu="0"}} {0.75 * seconds}',
            "node_memory_MemTotal_bytes 16e9\nnode_memory_MemAvailable_bytes 4e9",
            f'node_network_receive_bytes_total{{device="eth0"}} {1e6 * seconds}',
            f'node_network_receive_bytes_total{{device="lo"}} {9e6 * seconds}',
            f'node_network_transmit_bytes_total{{device="eth0"}} {1e6 * seconds}',
        ]
    )  # fmt: skip


def _settled(seen) -> bool:
    """A whole rate window has been scraped."""
    rates = seen.get("ranker", {}).get("orders"), seen.get("node", {}).get("network_mb_s")
    return rates[0] == pytest.approx(3.0, rel=0.1) and rates[1] == pytest.approx(2.0, rel=0.1)


@pytest.mark.server
def test_a_real_prometheus_answers_every_one_and_only_the_wrong_ones_are_off(tmp_path):
    text = FILE + (
        "      twice: {class: data, promql: two}\n"
        "      nonsense: {class: data, promql: 'sum(rate(orders_total[$w])) by by'}\n"
        "      odd: {class: oddity, promql: 'sum(orders_total)'}\n"
    )
    node = text.split("services:\n")[1].split("    exporters")[0].replace("name: ranker", "name: node")
    node = node.replace("150ms}", "151ms}") + "    exporters: {node_exporter: {job: ranker}}\n"
    services = loads("prometheus: {rate_window: 5s, step: 1s}\n" + text + node).service_values()
    with scraped(tmp_path, {"ranker": page}) as address:
        source = PrometheusSource(address, rate_window_s=5.0)
        signals = pipeline.signals_needed(services)
        more = ("cpu", "network_mb_s", "gpu_power_w")
        until, seen = time.monotonic() + 60, {}
        while not _settled(seen) and time.monotonic() < until:
            time.sleep(1.0)
            now_s = time.time()
            with contextlib.suppress(SlotuneError):  # it has only just begun
                found = source.read(services, (*signals, *more), Span(now_s - 3, now_s, 1.0))
                seen = {name: {s: window.last(s) for s in window.values} for name, window in found.items()}
    ranker, machine = seen["ranker"], seen["node"]
    expected = {"conversion": 0.031, "orders": 3.0, "cpu": 0.25, "memory_gb": 3.0, "network_mb_s": 3.0, "gpu_util": 0.8,
                "gpu_memory": 0.75, "gpu_power_w": 310.0, "gpu_temperature_c": 74.0}  # fmt: skip
    assert {name: ranker[name] for name in expected} == pytest.approx(expected, rel=0.15)
    assert {n: machine[n] for n in ("cpu", "memory_gb", "network_mb_s")} == pytest.approx(
        {"cpu": 0.25, "memory_gb": 12.0, "network_mb_s": 2.0}, rel=0.15
    )
    assert ranker["p95_ms"] is not None
    off = signals_off({s.name: s for s in services}, found, {})
    assert set(off) == {"ranker"}
    assert "its signal twice is off: its query gives 2 series where a signal is one" in off["ranker"]
    assert "its signal nonsense is off" in off["ranker"] and "there is no class 'oddity'" in off["ranker"]
    table = {row.signal: row for row in rows(services[0], found["ranker"], 5.0)}
    assert table["conversion"].value == "3.1 %" and "there is no class" in table["odd"].reason


STEP_S = 300.0


def window(values: np.ndarray, end_s: float = 14 * DAY_S) -> MetricWindow:
    span = Span(end_s - (values.size - 1) * STEP_S, end_s, STEP_S)
    rng = np.random.default_rng(1)
    p95 = 80 * np.exp(rng.normal(0, 0.05, values.size))
    return MetricWindow("ranker", span, {"conversion": values, "p95_ms": p95, "qps": 50 + rng.normal(0, 2, values.size)})


def service(own: OwnSignal = CONVERSION) -> Service:
    return Service(name="ranker", serving="generic_histogram", slo=Slo(p95_ms=150), own_signals={"conversion": own})


def anomalies(own: OwnSignal, noise: float, jump: float):
    """What is said of a signal of 3.1 % that has moved by `jump` for the last hour, after two quiet weeks."""
    rng = np.random.default_rng(2)
    points = round(14 * DAY_S / STEP_S)
    values = 0.031 + rng.normal(0, 1, points) * noise
    settings = DetectionSettings(history_step_s=STEP_S, history_s=13 * DAY_S)
    learned = pipeline.learn([service(own)], {"ranker": window(values)}, {}, settings)
    recent = 0.031 + rng.normal(0, 1, 400) * noise
    recent[-12:] += jump
    seen = {"ranker": window(recent, 15 * DAY_S)}
    state, found = None, []
    for at_s in 15 * DAY_S - np.arange(3)[::-1] * STEP_S:
        found, _, state = pipeline.detect([service(own)], seen, learned, float(at_s), settings, state)
    return [anomaly for anomaly in found if anomaly.signal == "conversion"]


@pytest.mark.parametrize("noise", [0.0004, 0.0], ids=["noisy", "never moved before"])
def test_a_business_signal_that_falls_is_a_warning_with_its_name_and_unit(noise):
    (found,) = anomalies(CONVERSION, noise, -0.012)
    assert (found.tier, found.symptom) == ("warn", "business")
    assert found.reason.startswith("conversion is 1.") and "%, expected" in found.reason
    assert found.evidence == {}, "what is learned from labels must not make more of it"


@pytest.mark.parametrize(
    ("own", "jump"),
    [(CONVERSION, 0.012), (changed(worse="up"), -0.012), (changed(worse="none"), -0.012), (changed(floor=0.02), -0.012),
     (CONVERSION, 0.0)],
    ids=["the good way", "the other good way", "only shown", "less than is news", "quiet"],
)  # fmt: skip
def test_what_does_not_hurt_is_no_news(own, jump):
    assert anomalies(own, 0.0004, jump) == []


def test_a_limit_of_ones_own_may_be_on_a_signal_of_ones_own():
    limit = "detection: {limits: [{name: few_orders, signal: conversion, below: 2%, severity: act, for: 60s}]}\n"
    settings = loads(limit + FILE, thorough=True)
    seen = {"ranker": window(np.full(100, 0.01))}
    found, _, _ = pipeline.detect(settings.service_values(), seen, pipeline.BaselineSet(()), 14 * DAY_S, settings.detection)
    assert [(a.signal, a.tier, a.symptom) for a in found] == [("conversion", "act", "business")]
    with pytest.raises(ServicesFileError, match="did you mean 'conversion'"):
        loads(limit.replace("signal: conversion", "signal: conversions") + FILE, thorough=True)


def test_it_is_on_the_dashboard_of_its_class_and_in_the_drift_report():
    (found,) = loads(FILE, thorough=True).service_values()
    made = dashboards(list(own_signals.table(found).values()))
    asked = [target["expr"] for panel in made["slotune-business.json"]["panels"] for target in panel["targets"]]
    assert asked == [f'slotune_signal{{signal="{name}",service=~"$service"}}' for name in ("conversion", "orders")]
    rng = np.random.default_rng(3)
    values = 0.031 + rng.normal(0, 0.0004, round(9 * DAY_S / STEP_S))
    assert drifted({"ranker": window(values)}, ("conversion",)) == ()
    values[-round(2 * DAY_S / STEP_S) :] -= 0.004
    (drift,) = drifted({"ranker": window(values)}, ("conversion",))
    assert drift.signal == "conversion" and "has drifted" in drift.reason
