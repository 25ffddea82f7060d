"""Each alert fires when it should and only then, by promtool's own evaluation."""

from __future__ import annotations

import shutil
import subprocess

import pytest
import yaml
from typer.testing import CliRunner

from slotune.cli import build_app
from slotune.monitoring.rules import rules
from tuning.services_yaml import loads

SETTINGS = loads(
    "schedule: {watch_every: 5m}\nsafety: {approval_timeout: 30m}\n"
    "services:\n  - {name: ranker, serving: triton, selectors: {m: r}, slo: {p95: 100ms}}\n"
)
MINUTE = 60
R = '{service="ranker"}'

# alert: (series as promtool writes them at a step of a minute, quiet at minute, firing at minute)
CASES = {
    "SlotuneLoopDead": (
        {"slotune_sweep_timestamp_seconds": "0x60", "slotune_sweep_interval_seconds": "300x60"}, 15, 16),
    "SlotuneGone": ({"slotune_sweep_timestamp_seconds": "0x10"}, 12, 25),
    "SlotuneIncidentOpenLong": ({'slotune_incident_opened_timestamp_seconds{service="ranker",tier="act"}': "0x60"}, 29, 32),
    "SlotuneServiceUnreadable": ({'slotune_unreadable{service="ranker",part="series"}': "0x5 1x60"}, 19, 23),
    "SlotuneApprovalWaiting": ({f"slotune_approval_asked_timestamp_seconds{R}": "0x60"}, 14, 17),
    "SlotuneLeaseOverdue": ({f"slotune_lease_expires_timestamp_seconds{R}": "1200x60"}, 20, 32),
    "SlotuneReportsUnsent": ({"slotune_reports_unsent": "0x5 2x60"}, 34, 38),
    "SlotuneSloBurnsFast": ({f"slotune_slo_broken{R}": "0x60 1x60"}, 64, 75),
    "SlotuneSloBurnsSlowly": ({f"slotune_slo_broken{R}": "0x300 1x120"}, 310, 350),
}  # fmt: skip


def made() -> str:
    return rules(SETTINGS)


def alerts(text: str) -> dict[str, dict]:
    return {r["alert"]: r for g in yaml.safe_load(text)["groups"] for r in g["rules"] if "alert" in r}


def test_every_alert_has_a_case():
    assert sorted(alerts(made())) == sorted(CASES)


def test_every_alert_leads_to_the_page_where_it_is_known_where_that_is():
    assert all("link" not in alert["annotations"] for alert in alerts(made()).values())
    known = SETTINGS.model_copy(update={"notify": SETTINGS.notify.model_copy(update={"base_url": "https://a.example/slotune/"})})
    links = {name: alert["annotations"]["link"] for name, alert in alerts(rules(known)).items()}
    incident = "https://a.example/slotune/services/{{ $labels.service }}/incident"
    assert links["SlotuneSloBurnsFast"] == links["SlotuneIncidentOpenLong"] == incident
    assert links["SlotuneLoopDead"] == links["SlotuneReportsUnsent"] == "https://a.example/slotune/health"


@pytest.mark.server
@pytest.mark.parametrize("alert", sorted(CASES))
def test_an_alert_fires_when_it_should_and_not_before(alert, tmp_path):
    promtool = shutil.which("promtool")
    assert promtool, "run scripts/system-packages prometheus"
    series, quiet, firing = CASES[alert]
    (tmp_path / "rules.yml").write_text(made())
    count = f'count(ALERTS{{alertname="{alert}",alertstate="firing"}}) or vector(0)'
    test = {
        "rule_files": ["rules.yml"],
        "evaluation_interval": "1m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "promql_expr_test": [
                    {"expr": count, "eval_time": f"{quiet}m", "exp_samples": [{"labels": "{}", "value": 0}]},
                    {"expr": count, "eval_time": f"{firing}m", "exp_samples": [{"labels": "{}", "value": 1}]},
                ],
            }
        ],
    }
    (tmp_path / "test.yml").write_text(yaml.safe_dump(test))
    for arguments in (["check", "rules", "rules.yml"], ["test", "rules", "test.yml"]):
        done = subprocess.run([promtool, *arguments], cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_thresholds_follow_the_objective_and_the_interval():
    strict = alerts(rules(SETTINGS, objective=0.999))
    assert "> 0.0144 and" in strict["SlotuneSloBurnsFast"]["expr"] and "> 0.006 and" in strict["SlotuneSloBurnsSlowly"]["expr"]
    assert alerts(made())["SlotuneServiceUnreadable"]["for"] == "900s"
    # with half of the time allowed to be broken, a factor of 14.4 could never be reached
    assert "> 0.99 and" in alerts(rules(SETTINGS, objective=0.5))["SlotuneSloBurnsFast"]["expr"]


@pytest.mark.parametrize(("objective", "code"), [("0.99", 0), ("1", 2), ("0", 2), ("-3", 2), ("nan", 2)])
def test_the_command_writes_a_file_or_says_why_not(tmp_path, objective, code):
    file = tmp_path / "services.yaml"
    file.write_text("services:\n  - {name: a, serving: triton, selectors: {m: r}, slo: {p95: 100ms}}\n")
    arguments = ["rules", "--out", str(tmp_path / "out"), "--objective", objective, "--config", str(file)]
    result = CliRunner().invoke(build_app(arguments), arguments)
    assert (result.exit_code == 0) is (code == 0)
    assert (tmp_path / "out" / "slotune.rules.yml").exists() is (code == 0)
