"""Rules that a tool can check, each with an example that it must reject."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
import vulture

from detection import detectors, presets
from detection.sources import REGISTRY as SOURCES
from tuning import actuators, notifiers, planning, verification
from tuning.model import LEVER_STEPS, STEPS

ROOT = Path(__file__).parents[1]
PATCH = re.compile(r"unittest\.mock|mock\.patch|@patch|mocker\.|monkeypatch\.setattr")
HOST = re.compile("p" + r"ypi\.org|python" + r"hosted\.org|registry\.npm" + "js|deb\\.deb" + "ian")
HERE = re.compile("/wo" + "rk/|/ro" + "ot/")


def tracked(*patterns: str) -> list[Path]:
    done = subprocess.run(["git", "ls-files", *patterns], cwd=ROOT, capture_output=True, text=True, check=False)
    return [ROOT / line for line in done.stdout.splitlines() if (ROOT / line).is_file()]


def offenders(rule: re.Pattern[str], files: list[Path]) -> list[str]:
    found = []
    for file in files:
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        found += [f"{file.relative_to(ROOT)}: {m.group()}" for m in rule.finditer(text)]
    return found


@pytest.mark.parametrize(
    ("rule", "example"),
    [(PATCH, "from unittest.mock import Mock"), (HOST, "https://py" + "pi.org/simple"), (HERE, "/wo" + "rk/main/x")],
    ids=["patches", "registry hosts", "paths of one machine"],
)
def test_each_rule_rejects_its_example(rule, example):
    assert rule.search(example)


def test_fakes_instead_of_patches():
    assert offenders(PATCH, [f for f in tracked("tests/*.py", "tests/**/*.py") if f.name != Path(__file__).name]) == []


def test_no_registry_host_and_no_path_of_one_machine_in_any_file():
    files = [f for f in tracked() if f.name != Path(__file__).name]
    assert offenders(HOST, files) + offenders(HERE, files) == []


@pytest.mark.parametrize(
    "registry",
    [
        actuators.REGISTRY,
        detectors.REGISTRY,
        notifiers.REGISTRY,
        planning.REGISTRY,
        presets.REGISTRY,
        SOURCES,
        verification.REGISTRY,
    ],
    ids=["actuators", "detectors", "notifiers", "planning", "presets", "sources", "verification"],
)
def test_registries_are_sorted_and_in_the_docs(registry):
    assert list(registry) == sorted(registry) and registry
    docs = "".join(f.read_text() for f in (ROOT / "docs").glob("*.md"))
    assert [name for name in registry if name not in docs] == []


def test_the_vocabulary_is_one():
    assert set(LEVER_STEPS.values()) < set(STEPS)
    readme = (ROOT / "README.md").read_text()
    assert [step for step in STEPS if step not in readme] == []


NOT_DEAD = {
    "called by name from outside": {
        "look_again", "look_at_all", "__getattr__", "downgrade", "_get_socket", "get_next",
        "connection_made", "data_received", "eof_received", "connection_lost",
        "phase_start", "step_complete", "phase_finish", "on_dag_run_success", "on_dag_run_failed",
    },
    "named in a registry by text": {
        "Command", "HttpTemplate", "HttpConfig", "HttpRelease", "HttpRestart", "HttpVariant", "HttpAdmission", "HttpBreaker", "KubernetesAdmission", "TritonAdmission", "KubernetesRestart", "MlflowRelease", "TritonRelease", "TritonVariant", "KubernetesPatch", "KubernetesRelease", "KubernetesReplicas", "ModelRepository", "PodSpec", "Triton", "TritonRepository",
    },
    "for airflow_local_settings.py (docs/operations.md)": {"preload"},
    "for simulations and replays, which drive the loop by hand": {"run_once"},
    "for whoever loads an engine on a GPU node (docs/quantization.md)": {
        "publish_source", "publish_engine", "load_engine", "read_engine",
    },
}  # fmt: skip


def unused(*folders: str) -> list[str]:
    """Functions, methods and classes that nothing of the product uses."""
    found = vulture.Vulture(ignore_decorators=["@app.*", "@group.*", "@*validator*"])
    found.scavenge([str(ROOT / folder) for folder in folders])
    kinds = ("function", "method", "class", "property", "import", "unreachable_code")
    return [f"{Path(i.filename).name}:{i.first_lineno}: {i.name}" for i in found.get_unused_code(60) if i.typ in kinds]


def test_nothing_is_there_that_only_tests_use(tmp_path):
    reasons = {name for names in NOT_DEAD.values() for name in names}
    found = unused("detection", "tuning", "slotune", "plugins", "dags", "setup.py")
    assert [line for line in found if line.rpartition(" ")[2] not in reasons] == []
    assert reasons <= {line.rpartition(" ")[2] for line in found}, "a reason for what is used, or gone"
    (tmp_path / "x.py").write_text("def nobody_calls_me():\n    pass\n")
    assert unused(str(tmp_path)) == ["x.py:1: nobody_calls_me"]


def test_the_walk_of_one_parameter_is_the_one_in_the_docs():
    """Every module of detection/ and tuning/ that reads slo.p95_ms, by itself or as one of the promises, stands in the list, once, and every one listed exists."""
    text = (ROOT / "docs" / "architecture.md").read_text()
    walk = re.findall(r"`([a-z_/0-9]+\.py)`", text[text.index("## One parameter on its way") : text.index("The page, the metrics")])
    assert len(set(walk)) == len(walk) and all((ROOT / name).is_file() for name in walk)
    reads = re.compile(r"slo\.p95_ms|slo_p95_ms|slo\.main|slo\.objectives|promise\.limit_ms|judged\.limit_ms")
    found = {str(f.relative_to(ROOT)) for d in ("detection", "tuning") for f in (ROOT / d).rglob("*.py") if reads.search(f.read_text())}
    # the types themselves; and peers, which compares replicas, not the service, with it
    assert found - set(walk) == {"tuning/model.py", "tuning/ports.py", "detection/peers.py"}
    # those that know it by another name: a key of the file, a field of a setting, a fact of the cause table
    by_another_name = {"tuning/services_yaml.py", "tuning/service_settings.py", "tuning/planning/diagnosis.py"}
    assert {name for name in walk if name.startswith(("detection/", "tuning/"))} - found == by_another_name


def test_constraints_pin_every_version_without_addresses():
    lines = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.strip()]
    assert all(re.match(r"^[A-Za-z0-9._\[\]-]+==\S+( ; .+)?$", line) for line in lines)
    assert not any("://" in line for line in lines)
