"""Mistakes that people make in services.yaml: each is found at its line and key, and told what to write instead."""

from __future__ import annotations

import ast
import typing
from pathlib import Path

import pytest
from pydantic import BaseModel

from detection.errors import ConfigError
from tuning.cron import cron_problem
from tuning.services_checks import remarks
from tuning.services_yaml import ServicesFileError, loads
from tuning.settings import Settings
from tuning.yaml_sentences import sentence

ROOT = Path(__file__).parents[2]
GOOD = """\
prometheus:
  connection: prom
  rate_window: 60s
  step: 15s
  timeout: 10s
mail:
  to: [oncall@example.com]
schedule:
  watch_every: 5m
  review: "0 7 * * 1"
detection:
  min_effect: 20%
  close_after: 10m
planning:
  planner: model
safety:
  dry_run: false
  services_at_once: 3
  lease: 1h
  freeze: ["Fri 18:00-Mon 08:00"]
services:
  - name: ranker
    serving: triton
    selectors: {model: ranker}
    slo:
      p95: 100ms
      error_rate: 1%
    mode: observe
    levers:
      batch_size:
        connection: ranker_control
        min: 1
        max: 32
        timeout_max: 20ms
  - name: search
    serving: generic_histogram
    selectors:
      job: search
    slo: {p95: 2s}
    labels:
      metric.duration: search_seconds
"""

LIMIT = "limits:\n    - {name: gpu_busy, %s}"
OWN = "actuator: http\n        read: {path: /c, batch_size_at: /n}\n        write: {path: /c, body: "
# what is replaced, by what, the line, the key, and words that say what is wrong or what to write
MISTAKES = [
    ("connection: prom", "conection: prom", 2, "prometheus.conection", "did you mean 'connection'?"),
    ("connection: prom\n", "connection: http://prom:9090\n", 2, "prometheus.connection", "name a connection, not an address"),
    ("connection: prom\n", "connection:\n", 2, "prometheus.connection", "must be a text"),
    ("rate_window: 60s", "rate_window: 60", 3, "prometheus.rate_window", "60 has no unit: write 60ms, 60s or 60m"),
    ("rate_window: 60s", "rate_window: 60sec", 3, "prometheus.rate_window", "is not a duration (units: us, ms, s"),
    ("rate_window: 60s", "rate_window: -60s", 3, "prometheus.rate_window", "is not a duration"),
    ("rate_window: 60s", "rate_window: 0s", 3, "prometheus.rate_window", "must be larger than 0"),
    ("rate_window: 60s", "rate_window: 15s", 3, "prometheus.rate_window", "fewer than two samples"),
    ("rate_window: 60s", "rate_window: 600d", 3, "prometheus.rate_window", "longer than a year"),
    ("rate_window: 60s", "rate_window: [60s]", 3, "prometheus.rate_window", "must be a number (found a list)"),
    ("step: 15s", "step: fifteen", 4, "prometheus.step", "is not a duration"),
    ("step: 15s", "step_ms: 15", 4, "prometheus.step_ms", "did you mean 'step'?"),
    ("timeout: 10s", "timeout: 10m", 5, "prometheus.timeout", "longer than schedule.watch_every"),
    ("to: [oncall@example.com]", "to: oncall@example.com", 7, "mail.to", "must be a list: write [a, b]"),
    ("to: [oncall@example.com]", "to: [5]", 7, "mail.to[0]", "must be a text: put it in quotes"),
    ("watch_every: 5m", "watch_every: 1s", 9, "schedule.watch_every", "must be at least 5"),
    ("watch_every: 5m", "watch_every: '*/5 * * * *'", 9, "schedule.watch_every", "is not a duration"),
    ('review: "0 7 * * 1"', "review: monday", 10, "schedule.review", "is not a cron expression: write five fields"),
    ('review: "0 7 * * 1"', 'review: "0 25 * * 1"', 10, "schedule.review", "its hour must be * or of 0 to 23"),
    ('review: "0 7 * * 1"', 'review: "0 7 * * 1 2026"', 10, "schedule.review", "write five fields"),
    ("min_effect: 20%", "min_effect: twenty", 12, "detection.min_effect", "must be a number"),
    ("min_effect: 20%", "min_effect: -0.2", 12, "detection.min_effect", "must be at least 0"),
    ("min_effect: 20%", "min_efect: 20%", 12, "detection.min_efect", "did you mean 'min_effect'?"),
    ("close_after: 10m", "detectors: [isolation_forrest]", 13, "detection.detectors[0]", "isolation_forest"),
    ("close_after: 10m", "rules: {latency: {threshold: 5}}", 13, "detection.rules.latency", "latency"),
    ("planner: model", "planner: models", 15, "planning.planner", "did you mean 'model'?"),
    ("dry_run: false", "dry_run: maybe", 17, "safety.dry_run", "must be true or false (found 'maybe')"),
    ("dry_run: false", "dryrun: false", 17, "safety.dryrun", "did you mean 'dry_run'?"),
    ("services_at_once: 3", "services_at_once: 0", 18, "safety.services_at_once", "must be at least 1"),
    ("services_at_once: 3", "services_at_once: 2.5", 18, "safety.services_at_once", "must be a whole number"),
    ("services_at_once: 3", "services_at_once: 99999999999999999999999", 18, "safety.services_at_once", "at most"),
    ("lease: 1h", "lease: forever", 19, "safety.lease", "is not a duration"),
    ('freeze: ["Fri 18:00-Mon 08:00"]', 'freeze: ["weekends"]', 20, "safety.freeze", "weekends"),
    ('freeze: ["Fri 18:00-Mon 08:00"]', "timezone: Middle-earth", 16, "safety", "Middle-earth"),
    ("name: ranker", "name: my ranker", 22, "services[0].name", "must be of letters, digits, dots and dashes"),
    ("name: ranker", "name: 5", 22, "services[0].name", "must be a text: put it in quotes"),
    ("name: ranker", "nam: ranker", 22, "services[0].nam", "did you mean 'name'?"),
    ("name: search", "name: ranker", 35, "services[1].name", "two services are named 'ranker'"),
    ("serving: triton", "serving: tritton", 23, "services[0].serving", "no preset 'tritton'; did you mean 'triton'?"),
    ("serving: triton", "serving: tensorflow", 23, "services[0].serving", "known: bentoml"),
    ("    serving: triton\n", "", 22, "services[0].serving", "is missing"),
    ("selectors: {model: ranker}", "selectors: {}", 24, "services[0].selectors", "must not be empty"),
    ("selectors: {model: ranker}", "selectors: model=ranker", 24, "services[0].selectors", "must be a mapping"),
    ("selectors: {model: ranker}", "selectors: [model, ranker]", 24, "services[0].selectors", "must be a mapping"),
    ("selectors: {model: ranker}", "selectors: {model: 7}", 24, "services[0].selectors.model", "must be a text: put it in quotes"),
    ("selectors: {model: ranker}", "selectors: {'': ranker}", 24, "services[0].selectors", "no label"),
    ("selectors: {model: ranker}", "selectors: {__name__: x}", 24, "services[0].selectors", "no label"),
    ("p95: 100ms", "p95: 100", 26, "services[0].slo.p95", "100 has no unit"),
    ("p95: 100ms", "ttft_p95: 100", 26, "services[0].slo.ttft_p95", "100 has no unit"),
    ("p95: 100ms", "p95: 100mss", 26, "services[0].slo.p95", "did you mean 'ms'?"),
    ("p95: 100ms", "p95: 0ms", 26, "services[0].slo.p95", "must be larger than 0"),
    ("p95: 100ms", "p95: 1e400ms", 26, "services[0].slo.p95", "is not a duration"),
    ("p95: 100ms", "p95_ms: .inf", 26, "services[0].slo.p95_ms", "longer than a year"),
    ("p95: 100ms", "p95_ms: .nan", 26, "services[0].slo.p95_ms", "must be"),
    ("p95: 100ms", "p95: 40d", 26, "services[0].slo.p95", "must be at most 86400000"),
    ("p95: 100ms", "p99: 100ms", 26, "services[0].slo.p99", "did you mean 'p95'?"),
    ("error_rate: 1%", "error_rate: 150%", 27, "services[0].slo.error_rate", "must be at most 1"),
    ("error_rate: 1%", "error_rate: one", 27, "services[0].slo.error_rate", "must be a number"),
    ("mode: observe", "mode: auto", 28, "services[0].mode", "observe (plans and mails, changes nothing)"),
    ("mode: observe", "mode: active", 28, "services[0].mode", "approve (asks a person first)"),
    ("mode: observe", "mode: acct", 28, "services[0].mode", "is not a mode"),
    ("mode: observe", "mode: obsevre", 28, "services[0].mode", "did you mean 'observe'?"),
    ("mode: observe", "mode: off", 28, "services[0].mode", "false is not a mode"),
    ("mode: observe", "mode: [act]", 28, "services[0].mode", "a list is not a mode"),
    ("mode: observe", "modus: observe", 28, "services[0].modus", "did you mean 'mode'?"),
    ("    levers:\n", "    lever:\n", 29, "services[0].lever", "did you mean 'levers'?"),
    ("      batch_size:\n", "      batchsize:\n", 30, "services[0].levers.batchsize", "did you mean 'batch_size'?"),
    ("        connection: ranker_control\n", "", 30, "services[0].levers.batch_size.connection", "a lever needs an address"),
    ("        min: 1\n", "        min: 64\n", 30, "services[0].levers.batch_size", "min (64) is larger than max (32)"),
    ("max: 32", "max: 10000000000", 33, "services[0].levers.batch_size.max", "must be at most"),
    ("max: 32", "max: 0", 33, "services[0].levers.batch_size.max", "must be at least 1"),
    ("max: 32", "maximum: 32", 33, "services[0].levers.batch_size.maximum", "unknown key"),
    ("metric.duration: search_seconds", "unit.duration: minutes", 41, "services[1].labels.unit.duration", "write s, ms, us"),
    ("min_effect: 20%", LIMIT % "signal: gpu_utl, above: 90%", 13, "detection.limits[0].signal", "there is no signal 'gpu_utl'"),
    ("min_effect: 20%", LIMIT % "signal: gpu_util", 13, "detection.limits[0]", "needs exactly one of above and below"),
    ("min_effect: 20%", LIMIT % "signal: gpu_util, above: 90%, clear: 95%", 13, "detection.limits[0]", "must not be beyond the limit"),
    ("min_effect: 20%", LIMIT % "signal: gpu_util, above: 90%, for: 5", 13, "detection.limits[0].for", "5 has no unit"),
    ("min_effect: 20%", LIMIT % "signal: gpu_util, above: 90%, for: 3h", 11, "detection", "it could never fire"),
    ("min_effect: 20%", LIMIT % "signal: gpu_util, above: 90%, services: [rankr]", 13, "detection.limits[0].services[0]", "'rankr' is no service"),
    ("min_effect: 20%", LIMIT % "signal: gpu_util, above: 90%, severity: page", 13, "detection.limits[0].severity", "not one of warn, act"),
    ("min_effect: 20%", "limits: [{name: errors, signal: gpu_util, above: 90%}]", 12, "detection.limits[0].name", "is a rule already"),
    ("    labels:", "    signals: {accuracy: 'avg(x)'}\n    labels:", 40, "services[1].signals.accuracy", "has no $sel"),
    ("    labels:", "    signals: {accurcy: 'avg by ($by) (x{$sel})'}\n    labels:", 40, "services[1].signals.accurcy", "there is no signal 'accurcy'"),
    ("    labels:", "    signals: {busy: 'avg by ($by) ($(x){$sel})'}\n    labels:", 40, "services[1].signals.busy", "$(x)"),
    ("max: 32", "actuator: http", 30, "services[0].levers.batch_size.read", "is missing"),
    ("max: 32", OWN + "{n: 8}}", 30, "services[0].levers.batch_size", "put {batch_size} into its path or body"),
    ("max: 32", OWN + "{n: {batch_size}}}", 35, "services[0].levers.batch_size.write.body", "without quotes"),
    ("max: 32", OWN + "{n: '{batchsize}'}}", 35, "services[0].levers.batch_size.write", "there is no place {batchsize}"),
    ("max: 32", "actuator: http-config", 33, "services[0].levers.batch_size.actuator", "did you mean 'http_config'?"),
    ("timeout_max: 20ms", "timeout_max: 20", 34, "services[0].levers.batch_size.timeout_max", "20 has no unit"),
    ("timeout_max: 20ms", "timeout_max: 20ms\n        min: 2", 35, "services[0].levers.batch_size.min", "is given twice"),
    ("    labels:\n      metric.duration: search_seconds\n", "  - name: third\n    serving: generic_histogram\n    selectors: {job: search}\n    slo: {p95: 1s}\n", 42, "services[2].selectors", "'third' and 'search' have the same selectors"),
    ("    labels:\n      metric.duration: search_seconds\n", "    levers:\n      batch_size: {connection: ranker_control, min: 1, max: 4}\n", 41, "services[1].levers.batch_size", "'search' and 'ranker' move one and the same setting (connection ranker_control)"),
    ("metric.duration: search_seconds", "metric.latency: search_seconds", 41, "services[1].labels.metric.latency", "no metric 'latency'"),
    ("metric.duration: search_seconds", "metric.duratoin: search_seconds", 41, "services[1].labels.metric.duratoin", "did you mean 'duration'?"),
    ("metric.duration: search_seconds", "metric.duration: search seconds", 41, "services[1].labels.metric.duration", "is not a Prometheus metric name"),
    ("    labels:\n", "    - labels:\n", 40, "", "is not YAML"),
    ("slo: {p95: 2s}", "slo: {p95: 2s", 40, "", "is not YAML"),
    ("slo: {p95: 2s}", "slo: 2s", 39, "services[1].slo", "must be a mapping of keys to values"),
    ("mail:\n", "mails:\n", 6, "mails", "did you mean 'mail'?"),
    ("mail:\n  to: [oncall@example.com]\n", "mail:\n\tto: [x]\n", 7, "", "is not YAML"),
    ("services:\n", "service:\n", 21, "service", "did you mean 'services'?"),
]  # fmt: skip


KNOWN = {"planning.planner": ["model", "playbook"]}


def problems(text: str):
    with pytest.raises(ServicesFileError) as caught:
        loads(text, "services.yaml", thorough=True, known=KNOWN)
    return caught.value.problems


def test_the_good_file_has_no_mistake():
    assert len(loads(GOOD, thorough=True).services) == 2


def test_there_are_enough():
    assert len({(old, new) for old, new, *_ in MISTAKES}) == len(MISTAKES) >= 80


@pytest.mark.parametrize(("old", "new", "line", "key", "words"), MISTAKES, ids=lambda v: str(v)[:30])
def test_a_mistake_is_found_at_its_place_and_told(old: str, new: str, line: int, key: str, words: str):
    assert GOOD.count(old) >= 1, old
    found = problems(GOOD.replace(old, new, 1))
    here = [p for p in found if p.path == key]
    assert [p.line for p in here] == [line], [(p.line, p.path, p.message) for p in found]
    assert words in here[0].message
    assert len(here[0].message) < 500
    for p in found:
        assert not {"Input should", "valid tuple", "Traceback", "Error"} & {p.message, *p.message.split(" (")}
        assert "did you mean 'act'" not in p.message


@pytest.mark.parametrize("word", ["auto", "acct", "activ", "aktiv", "ac", "acts", "Act", "ACT", "actt", "act ", "do", "on", True, 1, None, ["act"]])
def test_nobody_is_led_to_a_more_dangerous_mode(word: object):
    told = sentence({"type": "literal_error", "loc": ("mode",), "input": word, "msg": "", "ctx": {"expected": "'observe', 'approve' or 'act'"}})
    assert "did you mean 'act'" not in told and "changes things by itself" in told


def nested(text: str, levels: int, width: int = 9) -> str:
    out = f"&a0 [{', '.join(['x'] * width)}]"
    for i in range(1, levels):
        out = f"&a{i} [{out}, " + ", ".join([f"*a{i - 1}"] * width) + "]"
    return text + out + "\n"


@pytest.mark.parametrize(
    "text",
    [
        nested("services: ", 8),
        nested(GOOD + "      x: ", 8),
        nested(GOOD.partition("mail:")[0] + "mail: {to: ", 8).rstrip() + "}\n",
        GOOD.replace("mode: observe", "mode: " + nested("", 8).strip()),
        GOOD + "      x: " + "[" * 300 + "]" * 300 + "\n",
        "a: " + "[" * 5000,
        "services: &s\n  - *s\n",
        "a: &r {b: *r}\n",
        GOOD.replace("100ms", "9" * 100_000 + "ms"),
        GOOD.replace("search_seconds", "9" * 100_000),
        GOOD + "      <<: [" + ", ".join(["{a: b}"] * 3000) + "]\n",
        GOOD.replace("ranker_control", '"a\\0b\\x1b[2J"').replace("mode: observe", 'mode: "\\x1b[2J\\nforged"'),
        GOOD.replace("search_seconds", "!!python/object/apply:os.system ['true']"),
        GOOD.replace("mode: observe", "mode: 2026-99-99"),
    ],
    ids=lambda text: f"{len(text)} characters",
)
def test_a_bomb_ends_in_a_sentence(text: str):
    try:
        loads(text, thorough=True)
    except ConfigError as error:
        said = str(error)
        assert said and len(said) < 20_000
        assert "\x1b" not in said and "\x00" not in said


def test_aliases_and_merges_are_read():
    text = GOOD.replace("    slo: {p95: 2s}\n", "    slo: &slo {p95: 2s, for: 30s}\n") + """\
  - name: other
    serving: triton
    selectors: {model: other}
    slo: {<<: *slo, p95: 3s}
"""
    slo = loads(text, thorough=True).services[2].slo
    assert (slo.p95_ms, slo.for_s) == (3000.0, 30.0)


def test_a_label_that_only_prometheus_3_knows_is_a_remark():
    text = GOOD.replace("{model: ranker}", "{app.kubernetes.io/name: ranker}")
    (remark,) = remarks(loads(text, thorough=True))
    assert "services[0].selectors" in remark and "Prometheus 3" in remark and "'app_kubernetes_io_name'" in remark
    assert remarks(loads(GOOD)) == []


def test_one_service_that_is_wrong_does_not_stop_the_loop():
    text = GOOD.replace("serving: triton", "serving: tritton").replace("metric.duration", "metric.latency")
    assert len(loads(text).service_values()) == 2


@pytest.mark.parametrize("text", ["0 7 * * 1", "*/5 * * * *", "0 7 1,15 jan-mar mon", "@weekly", "0-30/10 0 * * sun", "59 23 31 12 7"])
def test_cron_expressions(text: str):
    assert cron_problem(text) == ""


@pytest.mark.parametrize("text", ["", "x", "60 7 * * 1", "0 7 * * 8", "0 7 0 * *", "0 7 * 13 *", "*/0 * * * *", "0 7 * *", "@never", "0 7 * * mon-", "² 7 * * 1", "0 7 * * 1;rm"])
def test_what_is_no_cron_expression(text: str):
    assert cron_problem(text)


def sections(cls: type[BaseModel], seen: set[type[BaseModel]]) -> set[type[BaseModel]]:
    if cls not in seen:
        seen.add(cls)
        for info in cls.model_fields.values():
            for part in parts(info.annotation):
                sections(part, seen)
    return seen


def parts(annotation: object) -> list[type[BaseModel]]:
    if isinstance(annotation, type):
        return [annotation] if issubclass(annotation, BaseModel) else []
    return [found for inner in typing.get_args(annotation) for found in parts(inner)]


def words_of_the_code() -> set[str]:
    """Attributes that are read anywhere but where the levers' options check themselves, and texts that name one (those
    options are read by name)."""
    import sys

    homes = {Path(sys.modules[cls.__module__].__file__ or "").resolve() for cls in sections(Settings, set())}
    checks = ROOT / "tuning" / "actuators" / "settings"
    found: set[str] = set()
    for folder in ("detection", "tuning", "slotune", "dags", "plugins"):
        for file in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Load) and not file.is_relative_to(checks):
                    found.add(node.attr)
                elif isinstance(node, ast.Constant) and isinstance(node.value, str) and file.resolve() not in homes:
                    found.add(node.value)
    return found


def test_every_setting_is_read_by_the_code():
    read = words_of_the_code()
    unread = [f"{cls.__name__}.{name}" for cls in sections(Settings, set()) for name in cls.model_fields if name not in read]
    assert unread == []


def test_a_setting_that_nothing_reads_would_be_found():
    class Planted(BaseModel):
        a_setting_that_nobody_ever_asks_for: int = 0

    assert [name for name in Planted.model_fields if name not in words_of_the_code()] == list(Planted.model_fields)
