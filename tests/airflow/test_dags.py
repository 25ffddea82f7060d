"""The DAGs as Airflow sees them: they load, are light, cost three tasks a sweep, and speak the flow's words."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import pytest

from tuning.model import STEPS

pytestmark = pytest.mark.airflow
ROOT = Path(__file__).parents[2]
WAITING = {"approve", "approved", "learn_baselines", "review_week"}
HEAVY = ("sklearn", "pandas", "matplotlib", "onnxruntime", "onnx", "kubernetes", "prometheus_api_client", "scipy")


def test_every_dag_loads(dag_bag):
    assert dag_bag.import_errors == {}
    assert set(dag_bag.dags) == {"watch_services", "tune_service", "learn_baselines", "review_week"}


def test_a_sweep_is_three_task_instances_in_a_row_whatever_is_configured(dag_bag):
    dag = dag_bag.dags["watch_services"]
    assert [t.task_id for t in dag.topological_sort()] == ["pull_metrics", "detect_anomalies", "open_incidents"]
    assert not any(t.is_mapped for t in dag.tasks)
    assert dag.schedule == timedelta(minutes=7) and dag.max_active_runs == 1


def test_task_ids_are_the_words_of_the_flow(dag_bag):
    ids = {task.task_id for dag in dag_bag.dags.values() for task in dag.tasks}
    assert ids - WAITING <= set(STEPS)
    assert set(STEPS) - ids == {"guard"}, "guards run inside choose_action, before anything is touched"


def test_tune_service_branches_and_always_reports(dag_bag):
    dag = dag_bag.dags["tune_service"]
    levers = {"adjust_batch_size", "scale_replicas", "quantize_int8", "revert_release", "switch_variant", "limit_admission", "break_circuit", "restart_replica"}
    assert dag.task_dict["choose_action"].downstream_task_ids == levers | {"hold", "approve"}
    assert all(dag.task_dict[lever].downstream_task_ids == {"settle"} for lever in levers)
    assert dag.task_dict["verify_p95"].downstream_task_ids == {"keep", "roll_back"}
    assert dag.task_dict["email_report"].is_teardown


@pytest.mark.parametrize(("approvers", "assigned"), [("[]", None), ("[ann, '7']", [{"id": "ann", "name": "ann"}, {"id": "7", "name": "7"}])])
def test_airflow_lets_only_the_approvers_answer(dag_bag, tmp_path, monkeypatch, approvers, assigned):
    services = tmp_path / "services.yaml"
    services.write_text(f"safety: {{approvers: {approvers}}}\n{Path(os.environ['SLOTUNE_CONFIG']).read_text()}")
    monkeypatch.setenv("SLOTUNE_CONFIG", str(services))
    approve = dag_bag.dags["tune_service"].task_dict["approve"]
    approve.name_approvers()
    assert approve.assigned_users == assigned


def test_both_can_be_started_by_hand_with_a_form(dag_bag):
    params = dag_bag.dags["tune_service"].params
    assert params["service"] == "ranker", "the only service is preselected"
    assert params.get_param("lever").schema["enum"] == ["let it choose", "batch_size"], "no lever that nobody has"
    assert "ranker batch_size 1 to 32" in params.get_param("value").description
    assert params["dry_run"] is False
    assert dag_bag.dags["watch_services"].params.get_param("services").schema["examples"] == ["ranker"]


@pytest.mark.parametrize(
    ("conf", "fine"),
    [
        ({}, True),
        ({"service": "ranker", "lever": "batch_size", "value": 8}, True),
        ({"service": "the incident's", "incident_id": "i", "attempt": 2}, True),
        ({"service": None}, False),
        ({"service": "rankr"}, False),
        ({"lever": "replicas"}, False),
        ({"value": 64}, False),
        ({"value": "many"}, False),
        ({"attempt": 0}, False),
    ],
)
def test_what_does_not_fit_the_form_is_refused_before_a_run_starts(dag_bag, conf, fine):
    assert accepts(dag_bag.dags["tune_service"], conf) is fine


def accepts(dag, conf) -> bool:
    """Whether Airflow's server would start a run with this configuration: the check of its create_dagrun."""
    from airflow.exceptions import ParamValidationError
    from airflow.serialization.serialized_objects import DagSerialization

    stored = DagSerialization.from_dict(DagSerialization.to_dict(dag))
    try:
        stored.params.deep_merge(conf).validate()
    except ParamValidationError:
        return False
    return True


def test_of_several_services_one_has_to_be_chosen():
    from airflow.sdk import DAG

    from slotune_airflow.forms import tune_params
    from slotune_airflow.wiring import DagFacts

    dag = DAG("two", schedule=None, params=tune_params(DagFacts(services=("ranker", "tagger"))))
    assert not accepts(dag, {}) and not accepts(dag, {"dry_run": True})
    assert accepts(dag, {"service": "tagger"})


def test_every_dag_says_what_it_does_and_begins_as_the_settings_say(dag_bag, tmp_path, monkeypatch):
    from slotune_airflow.wiring import dag_facts

    assert all(dag.description and dag.is_paused_upon_creation is None for dag in dag_bag.dags.values())
    assert all(task.task_display_name for task in dag_bag.dags["tune_service"].tasks)
    switched_on = tmp_path / "services.yaml"
    text = Path(os.environ["SLOTUNE_CONFIG"]).read_text()
    switched_on.write_text(text.replace("watch_every: 7m", "watch_every: 7m, switched_on: true"))
    monkeypatch.setenv("SLOTUNE_CONFIG", str(switched_on))
    assert dag_facts().paused_at_first is False


def test_what_came_of_a_run_is_added_to_its_note_once(dag_bag):
    from airflow.models.dagrun import DagRun
    from airflow.models.xcom import XComModel
    from airflow.utils.session import create_session
    from airflow.utils.types import DagRunType
    from sqlalchemy import text

    from slotune_airflow.notes import on_dag_run_success, write_note

    with create_session() as session:
        session.execute(text("PRAGMA foreign_keys=OFF"))
        run = DagRun(dag_id="tune_service", run_id="manual__1", run_type=DagRunType.MANUAL, note="ranker: P95 is 800 ms")
        session.add(run)
        session.flush()
        write_note(run)
        assert run.note == "ranker: P95 is 800 ms", "nothing was said yet"
        said = "Resolved: ranker: batch size 1 -> 8"
        session.add(XComModel(dag_run_id=run.id, dag_id=run.dag_id, run_id=run.run_id, task_id="email_report", map_index=-1, key="note", value=f'"{said}"'))
        session.flush()
        for _ in range(2):
            on_dag_run_success(run, "")
        assert run.note == f"ranker: P95 is 800 ms\n\n{said}"
        session.rollback()


def test_the_command_line_sees_which_dags_are_paused(dag_bag):
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import text

    from slotune.commands.live_check import dags_results
    from slotune.connections import airflow_dags

    with create_session() as session:
        session.execute(text("PRAGMA foreign_keys=OFF"))
        session.merge(DagModel(dag_id="tune_service", bundle_name="dags-folder", is_paused=True))
        session.merge(DagModel(dag_id="watch_services", bundle_name="dags-folder", is_paused=False))
    assert airflow_dags() == {"tune_service": True, "watch_services": False}
    said = [result.text for result in dags_results()]
    assert "Airflow has watch_services switched on" in said
    assert any(text.startswith("tune_service is paused: nothing is done about what is found") for text in said)
    assert any(text.startswith("Airflow does not know review_week yet") for text in said)


def test_dag_files_only_wire():
    for file in (ROOT / "dags").glob("*.py"):
        assert len(file.read_text().splitlines()) <= 100, file.name


def test_parsing_the_dags_imports_nothing_heavy():
    code = (
        "import sys, runpy; sys.path.insert(0, 'plugins'); import airflow.sdk, airflow.providers.standard.operators.hitl;"
        "before = set(sys.modules);"
        "[runpy.run_path(f'dags/{n}.py') for n in ('watch_services', 'tune_service', 'learn_baselines', 'review_week')];"
        f"print(sorted({set(HEAVY)!r} & (set(sys.modules) - before)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_the_plugins_loader_sees_one_file_and_replaces_no_package(dag_bag):
    from airflow import plugins_manager

    # From this folder, or from the installed package's entry point: one plugin, and no error about a second one.
    plugins, errors = plugins_manager._get_plugins()
    assert [p.name for p in plugins if p.name == "slotune"] == ["slotune"]
    assert [error for name, error in errors.items() if "slotune" in f"{name}{error}"] == []
    import detection
    import tuning

    assert Path(tuning.__file__).parent == ROOT / "tuning" and Path(detection.__file__).parent == ROOT / "detection"


def test_a_broken_services_file_keeps_the_dags_and_is_said_by_the_first_task(monkeypatch, tmp_path):
    from airflow.sdk.exceptions import AirflowFailException

    from slotune_airflow import steps, wiring

    broken = tmp_path / "services.yaml"
    broken.write_text("services: [{name: x}]")
    monkeypatch.setenv("SLOTUNE_CONFIG", str(broken))
    assert wiring.dag_facts() == wiring.DagFacts()

    class Task:
        from datetime import UTC, datetime

        start_date = datetime(2026, 1, 1, tzinfo=UTC)

    with pytest.raises(AirflowFailException, match=r"services\[0\].slo: is missing"):
        steps.pull_metrics({"ti": Task()})


def test_permanent_fails_at_once_and_temporary_is_tried_again():
    from airflow.sdk.exceptions import AirflowException, AirflowFailException

    from detection.errors import Permanent, Temporary
    from slotune_airflow.failures import as_airflow_failures

    with pytest.raises(AirflowFailException, match="no"), as_airflow_failures():
        raise Permanent("no")
    with pytest.raises(AirflowException, match="later") as caught, as_airflow_failures():
        raise Temporary("later")
    assert not isinstance(caught.value, AirflowFailException)


def test_a_sweep_that_another_one_overtook_is_skipped():
    from airflow.sdk.exceptions import AirflowSkipException

    from detection.errors import Overtaken
    from slotune_airflow.failures import as_airflow_failures

    with pytest.raises(AirflowSkipException, match="another sweep's"), as_airflow_failures():
        raise Overtaken("replaced by another sweep's")


def test_the_wait_is_absolute_and_never_fires_at_once():
    from slotune_airflow.triggers import LEAST_WAIT_S, UntilTrigger

    trigger = UntilTrigger(123.0)
    assert trigger.serialize() == ("slotune_airflow.triggers.UntilTrigger", {"until_s": 123.0})
    assert LEAST_WAIT_S >= 10.0
