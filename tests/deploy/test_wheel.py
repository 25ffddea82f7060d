"""The wheel by itself: built, unpacked beside other people's `detection` and `tuning`, run, and found by Airflow."""

from __future__ import annotations

import json
import os
import runpy
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.wheel import build

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    """A folder as site-packages would be, with the wheel in it and two packages of somebody else."""
    built, site = tmp_path_factory.mktemp("built"), tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(build(built)) as wheel:
        wheel.extractall(site)
    for name in ("detection", "tuning"):
        (site / name).mkdir()
        (site / name / "__init__.py").write_text("OWNER = 'somebody else'\n")
    return site


def run(site: Path, code: str, *, cwd: Path, **environment: str) -> str:
    """A Python of this environment with the unpacked wheel in front of everything; what it printed."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("AIRFLOW", "SLOTUNE", "PYTHON"))}
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(site), **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-3000:]
    return done.stdout


def test_only_two_import_names_are_taken(site):
    (info,) = site.glob("slotune-*.dist-info")
    assert (info / "top_level.txt").read_text().split() == ["slotune", "slotune_airflow"]
    files = [line.split("/")[0] for line in (info / "RECORD").read_text().splitlines()]
    assert {name for name in files if not name.endswith(".dist-info")} == {"slotune", "slotune_airflow"}


def test_it_lives_beside_packages_of_the_same_names(site, tmp_path):
    code = """
import detection, tuning
from slotune.compose import load_settings
from slotune.tuning.actuators import get
from slotune.detection.pipeline import detect
assert detection.OWNER == tuning.OWNER == "somebody else"
print(get("http_config").__module__, detect.__module__)
"""
    assert run(site, code, cwd=tmp_path).split() == ["slotune.tuning.actuators", "slotune.detection.pipeline"]


def test_the_weights_of_the_learned_planners_come_with_it(site, tmp_path):
    code = """
from slotune.tuning import planning
from slotune.tuning.planning.settings import PlanningSettings
print(*(planning.get(name)(PlanningSettings()).name for name in planning.LEARNED))
"""
    assert run(site, code, cwd=tmp_path).split() == ["evolved", "ppo"]


def test_every_module_of_the_wheel_can_be_imported(site, tmp_path):
    code = """
import importlib, pkgutil, slotune
skipped = {"slotune.tuning.ledger.migrations.env"}  # run by Alembic, inside a migration
names = [m.name for m in pkgutil.walk_packages(slotune.__path__, "slotune.") if m.name not in skipped]
for name in names:
    importlib.import_module(name)
print(len(names))
"""
    assert int(run(site, code, cwd=tmp_path)) > 150


def test_the_command_line_checks_a_file_and_keeps_a_ledger(site, tmp_path):
    (tmp_path / "services.yaml").write_text(
        "prometheus: {connection: p}\nservices:\n"
        "  - {name: ranker, serving: triton, selectors: {model: ranker}, slo: {p95: 150ms}}\n"
    )
    code = """
import sys
from slotune.cli import main
sys.argv = ["slotune", *{arguments!r}]
main()
"""
    checked = run(site, code.format(arguments=["check", "services.yaml"]), cwd=tmp_path)
    assert "1 services, no mistakes" in checked
    listed = "from slotune.compose import open_ledger; print(open_ledger('sqlite:///l.sqlite').open_changes())"
    assert run(site, listed, cwd=tmp_path).strip() == "[]"


@pytest.mark.airflow
def test_airflow_finds_the_plugin_and_the_dags_of_the_package(site, tmp_path):
    """`slotune airflow install` into an empty home, then Airflow's own loaders."""
    home = tmp_path / "airflow"
    code = """
import os
from slotune.cli import build_app
from typer.testing import CliRunner
for _ in range(2):
    answer = CliRunner().invoke(build_app(["airflow"]), ["airflow", "install"])
    assert answer.exit_code == 0, answer.output
    print(answer.output.strip().splitlines()[-1])
from airflow import plugins_manager
plugins, errors = plugins_manager._get_plugins()
others = {k: e for k, e in errors.items() if "already registered" not in str(e)}  # this test's own environment has it, too
assert not others, others
print([p.name for p in plugins if p.name == "slotune"])
from airflow.dag_processing.dagbag import DagBag
bag = DagBag(dag_folder=os.environ["AIRFLOW_HOME"] + "/dags")
assert not bag.import_errors, bag.import_errors
print(sorted(bag.dags))
"""
    printed = run(
        site,
        code,
        cwd=tmp_path,
        AIRFLOW_HOME=str(home),
        AIRFLOW__CORE__LOAD_EXAMPLES="False",
        AIRFLOW__DATABASE__SQL_ALCHEMY_CONN=f"sqlite:///{tmp_path / 'airflow.db'}",
    ).splitlines()
    assert "points to" in printed[0] and "already" in printed[1]
    assert "['slotune']" in printed
    assert printed[-1] == "['learn_baselines', 'review_week', 'tune_service', 'watch_services']"
    assert (home / "dags" / "slotune").resolve() == site / "slotune_airflow" / "dags"


def test_the_bundle_setting_names_the_dags_of_the_package(site, tmp_path):
    code = """
from slotune.commands.airflow import bundles, packaged_dags
import json; print(json.dumps(bundles(packaged_dags())))
"""
    own, slotune = json.loads(run(site, code, cwd=tmp_path))
    assert own["kwargs"] == {} and Path(slotune["kwargs"]["path"]) == site / "slotune_airflow" / "dags"


@pytest.mark.parametrize(
    ("source", "why"),
    [("import detection.model\n", "write `from detection.model import"), ("X = 'tuning.loop'\n", "named by a text")],
    ids=["plain import", "name in a text"],
)
def test_a_source_that_cannot_be_turned_stops_the_build(source, why):
    turned = runpy.run_path(str(ROOT / "setup.py"))["turned"]
    with pytest.raises(SystemExit, match=why):
        turned(source, "x.py")
    assert turned("from detection.model import Span\n", "x.py") == "from slotune.detection.model import Span\n"
