"""Presets that are data: from services.yaml and from packages, held to what ours are held to, and read like ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from detection import presets
from detection.errors import ConfigError
from detection.model import OwnPreset
from detection.presets._own import packaged
from tuning.services_yaml import ServicesFileError, loads

GATEWAY = """
presets:
  - name: gateway
    like: generic_histogram
    names: {duration: gateway_request_ms, requests: gateway_requests_total}
    units: {duration: ms}
    signals: {busy: "avg by ($by) (gateway_busy_ratio{$sel})"}
  - name: batcher
    title: our own batcher
    names: {wait: batcher_wait_seconds}
    signals:
      p95_ms: 1e3 * max by ($by) (batcher_latency_seconds{$sel quantile="0.95"})
      queue_ms: 1e3 * avg by ($by) ($(wait){$sel})
    percentiles: summary
    replica_label: pod
services:
  - {name: edge, serving: gateway, selectors: {job: edge}, slo: {p95: 150ms}}
  - {name: core, serving: batcher, selectors: {job: core}, slo: {p95: 150ms}, labels: {metric.wait: other_wait_seconds}}
"""


def test_a_preset_of_services_yaml_changes_what_it_says_and_keeps_the_rest():
    edge, core = loads(GATEWAY, thorough=True).service_values()
    gateway, ours = presets.of(edge), presets.get("generic_histogram")
    assert gateway.signals["busy"] == "avg by ($by) (gateway_busy_ratio{$sel})"
    assert {k: v for k, v in gateway.signals.items() if k != "busy"} == {k: v for k, v in ours.signals.items() if k != "busy"}
    filled = dict(gateway.resolved(edge.labels))
    assert (filled["duration"], filled["duration_ms"], filled["batch_rows"]) == ("gateway_request_ms", "1", "inference_batch_rows")
    assert gateway.buckets == ours.buckets and edge.engine == ours.engine
    batcher = presets.of(core)
    assert set(batcher.signals) == {"p95_ms", "queue_ms"} and batcher.buckets == ""
    assert (batcher.percentile_source, batcher.replica_label, batcher.title) == ("summary", "pod", "our own batcher")
    assert dict(batcher.resolved(core.labels))["wait"] == "other_wait_seconds"


@pytest.mark.parametrize(
    ("was", "becomes", "line", "said"),
    [
        ("name: gateway", "name: vllm", 3, "'vllm' is a preset of slotune: give yours another name"),
        ("like: generic_histogram", "like: generic_histogramm", 4, "did you mean 'generic_histogram'?"),
        ("requests: gateway", "request: gateway-", 5, "is not a Prometheus metric name"),
        ("units: {duration: ms}", "units: {duration: hours}", 6, "'hours' is no unit of a duration: write s, ms, us"),
        ("units: {duration: ms}", "units: {durations: ms}", 6, "did you mean 'duration'?"),
        ("signals: {busy: ", "signals: {bussy: ", 7, "there is no signal 'bussy'; did you mean 'busy'?"),
        ("avg by ($by) (gateway", "avg(gateway", 7, "has no $by"),
        ("($(wait){$sel})", "($(waits){$sel})", 13, "has the place $(waits), which the preset batcher does not know"),
        ("      p95_ms: 1e3", "      p99_ms: 1e3", 11, "has no p95_ms (or ttft_p95_ms), so that no SLO can be held"),
        ("percentiles: summary", "percentiles: sumary", 14, "summary"),
        ("serving: gateway", "serving: gatewy", 17, "did you mean 'gateway'?"),
        ("metric.wait:", "metric.waits:", 18, "the preset batcher has no metric 'waits'"),
        ("name: batcher", "name: gateway", 2, "two presets have one name"),
        ("like: generic_histogram", "likes: generic_histogram", 4, "did you mean 'like'?"),
    ],
)
def test_a_mistake_is_told_with_its_line(was, becomes, line, said):
    assert was in GATEWAY
    with pytest.raises(ServicesFileError) as found:
        loads(GATEWAY.replace(was, becomes, 1), thorough=True)
    assert any(problem.line == line and said in problem.message for problem in found.value.problems), str(found.value)


def test_a_running_loop_names_the_service_whose_preset_is_wrong():
    edge = loads(GATEWAY).service_values()[0]
    broken = edge.model_copy(update={"preset": OwnPreset(signals={"p95_ms": "latency"})})
    with pytest.raises(ConfigError, match=r"the preset 'gateway': signals.p95_ms: has no \$sel"):
        presets.of(broken)


@pytest.fixture
def package(tmp_path: Path):
    """An installed package with three entry points: a preset, one with a mistake, and one that cannot be imported."""
    info = tmp_path / "acme-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme\nVersion: 1\n")
    (info / "entry_points.txt").write_text(
        "[slotune.presets]\nacme = acme_presets:ACME\nbad = acme_presets:BAD\ngone = acme_nowhere:X\n"
    )
    (tmp_path / "acme_presets.py").write_text(
        "ACME = {'like': 'triton', 'title': 'Acme on Triton', 'signals': {'busy': 'avg by ($by) (acme_busy{$sel})'}}\n"
        "BAD = {'like': 'triton', 'signals': {'bussy': 'x'}}\n"
    )
    sys.path.insert(0, str(tmp_path))
    yield
    sys.path.remove(str(tmp_path))
    sys.modules.pop("acme_presets", None)


def test_a_package_brings_presets_and_one_that_is_wrong_is_named_and_left_out(package, caplog):
    found = packaged(presets.OURS)
    assert list(found) == ["acme"] and found["acme"].title == "Acme on Triton"
    assert found["acme"].signals["p95_ms"] == presets.get("triton").signals["p95_ms"]
    assert "the preset 'bad'" in caplog.text and "did you mean 'busy'?" in caplog.text and "the preset 'gone'" in caplog.text
