"""services.yaml: units, and every mistake with its line, what is wrong and the nearest valid name."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detection.errors import ConfigError
from tuning.actuators.settings import OPTIONS
from tuning.services_yaml import ServicesFileError, load, loads

GOOD = """
prometheus: {rate_window: 30s, step: 500ms}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 0.15s, for: 2m, error_rate: 2%}
    levers:
      batch_size: {min: 2, max: 16, connection: ranker_control, timeout_max: 5ms}
      replicas: {min: 1, max: 3, connection: cluster, namespace: prod, target: ranker}
"""


def wrong(text: str) -> list[tuple[int, str, str]]:
    with pytest.raises(ServicesFileError) as caught:
        loads(text, "services.yaml")
    return [(p.line, p.path, p.message) for p in caught.value.problems]


def test_units_become_plain_numbers():
    settings = loads(GOOD)
    service = settings.services[0]
    assert (settings.prometheus.rate_window_s, settings.prometheus.step_s) == (30.0, 0.5)
    assert (service.slo.p95_ms, service.slo.for_s, service.slo.error_rate) == (150.0, 120.0, 0.02)


def test_a_new_service_observes_unless_told_otherwise():
    assert loads(GOOD).services[0].mode == "observe"


def test_levers_reach_the_service_with_bounds_and_options():
    lever = loads(GOOD).services[0].to_service().levers["batch_size"]
    assert (lever.minimum, lever.maximum, lever.options["connection"]) == (2, 16, "ranker_control")
    assert set(lever.options) == set(OPTIONS[lever.actuator].model_fields)
    triton = loads(GOOD.replace("{min: 2,", "{actuator: triton, min: 2,")).services[0].to_service().levers["batch_size"]
    assert (triton.actuator, triton.options["model"]) == ("triton", "ranker")


@pytest.mark.parametrize(
    ("old", "new", "line", "path", "words"),
    [
        ("rate_window", "rate_windw", 2, "prometheus.rate_windw", "did you mean 'rate_window'?"),
        ("step: 500ms", "step: 500", 2, "prometheus.step", "500 has no unit"),
        ("0.15s", "150kb", 7, "services[0].slo.p95", "is not a duration"),
        ("p95: 0.15s, ", "", 7, "services[0].slo.p95", "is missing"),
        ("2%", "200%", 7, "services[0].slo.error_rate", "must be at most 1"),
        ("{min: 2, max: 16", "{min: 20, max: 16", 9, "services[0].levers.batch_size", "min (20) is larger than max (16)"),
        ("connection: ranker_control, ", "", 9, "services[0].levers.batch_size.connection", "a lever needs an address"),
        ("connection: cluster", "connection: http://u:p@h", 10, "services[0].levers.replicas.connection",
         "name a connection, not an address"),
        ("name: ranker", "name: a b", 4, "services[0].name", "must be of letters"),
        ("name: ranker", "name: ranker\n    mode: acct", 5, "services[0].mode", "changes things by itself"),
        ("selectors: {service: ranker}", "selectors: {}", 6, "services[0].selectors", "must not be empty"),
        ("max: 16", "max: sixteen", 9, "services[0].levers.batch_size.max", "must be a whole number"),
        ("levers:", "leavers:", 8, "services[0].leavers", "did you mean 'levers'?"),
    ],
    ids=lambda value: str(value)[:24],
)  # fmt: skip
def test_one_mistake(old, new, line, path, words):
    assert old in GOOD
    found = wrong(GOOD.replace(old, new, 1))
    assert len(found) == 1, found
    assert found[0][:2] == (line, path) and words in found[0][2]


def test_the_rate_window_is_written_once():
    settings = loads(GOOD + "verification: {rate_window: 2m}\n")
    assert settings.planning.rate_window_s == 30.0 and settings.verification.rate_window_s == 120.0


def test_all_mistakes_of_a_file_are_reported_at_once():
    text = GOOD.replace("0.15s", "150kb").replace("min: 2,", "min: 99,").replace("rate_window", "rate_windw")
    assert [line for line, _, _ in wrong(text)] == [2, 7, 9]


def test_two_services_of_one_name():
    second = GOOD[GOOD.index("  - name") :]
    found = wrong(GOOD + second)
    assert found == [(11, "services[1].name", found[0][2])] and "two services are named 'ranker'" in found[0][2]


@pytest.mark.parametrize(
    "text",
    ["", "[]", "services: [", "a: b: c", "services: {}", "services: []", "services:\n - 7", "\tx", "services: !!python/x y",
     "services: &a [*a]", "? [x]\n: y", "services:\n  - name: {}"],
)  # fmt: skip
def test_what_is_not_a_services_file_ends_in_sentences(text):
    assert all(message for _, _, message in wrong(text))


@given(st.text(max_size=200))
def test_any_text_is_settings_or_a_sentence(text):
    try:
        loads(text)
    except ConfigError as error:
        assert str(error)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path / "none.yaml")


def test_a_file_that_is_not_text(tmp_path):
    (tmp_path / "x.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match="UTF-8"):
        load(tmp_path / "x.yaml")


@pytest.mark.parametrize(
    ("lever", "path", "words"),
    [
        ("batch_size: {connection: c, env: BATCH}", "batch_size.env", "is a key of the actuator pod_spec, not of http_config"),
        ("batch_size: {connection: c, load_timeout: 9s}", "batch_size.load_timeout", "is a key of the actuator triton, not of"),
        ("batch_size: {actuator: tritom, connection: c}", "batch_size.actuator", "'tritom' is not one of http_config, command, http, kubernetes_patch, pod_spec, triton; did you mean 'triton'?"),
        ("batch_size: {actuator: pod_spec, connection: c, target: t}", "batch_size.namespace", "is missing"),
        ("batch_size: {actuator: triton}", "batch_size.connection", "a lever needs an address"),
        ("batch_size: {connection: c, request_timeout: 2h}", "batch_size.request_timeout", "must be at most 3600"),
        ("batch_size: {connection: c, max: 99999999}", "batch_size.max", "must be at most 65536"),
        ("batch_size: {connection: c, cost_per_hour: .inf}", "batch_size.cost_per_hour", "finite number"),
        ("precision: {connection: c, min_speedup: 0.5}", "precision.min_speedup", "must be at least 1 (found 0.5)"),
        ("precision: {actuator: triton_repository, connection: c, shadow_share: 0.5}", "precision.shadow_share", "is a key of the actuator model_repository"),
        ("precision: {connection: c, build: {kind: pod}}", "precision.build", "a build in a pod needs connection"),
        ("replicas: {connection: c, namespace: n, target: t, env: X}", "replicas.env", "unknown key"),
    ],
)  # fmt: skip
def test_each_actuator_has_its_own_keys(lever: str, path: str, words: str) -> None:
    text = GOOD.partition("    levers:")[0] + f"    levers:\n      {lever}\n"
    (problem,) = wrong(text)
    assert problem[:2] == (9, f"services[0].levers.{path}")
    assert words in problem[2]


def test_no_control_call_may_take_longer_than_safety_allows() -> None:
    text = GOOD.replace("timeout_max: 5ms", "timeout_max: 5ms, request_timeout: 20s") + "safety: {control_timeout: 8s}\n"
    levers = loads(text).service_values()[0].levers
    assert {name: lever.options["request_timeout_s"] for name, lever in levers.items()} == {"batch_size": 8.0, "replicas": 8.0}


def test_a_detector_rule_or_series_that_nobody_knows_is_refused_with_the_known_ones_and_its_line() -> None:
    text = """
services:
  - {name: chat, serving: slotune_demo, selectors: {service: chat}, slo: {p95: 100ms}}
detection:
  detectors:
    - rules
    - forest
  rules:
    errors: {enabled: false}
    latency_p59: {threshold: 3}
  dynamic_series: [chat/p95_ms, chta/p95_ms]
"""
    with pytest.raises(ServicesFileError) as caught:
        loads(text, "s.yaml")
    found = str(caught.value).splitlines()
    assert [line.split(" ", 1)[0] for line in found] == [
        "s.yaml:7:", "s.yaml:10:", "s.yaml:11:",
    ]  # fmt: skip
    assert "no detector 'forest'" in found[0]
    assert "isolation_forest" in found[0]
    assert "latency_p95" in found[1]
    assert "absent_data" in found[1]
    assert "chta/p95_ms" in found[2]
