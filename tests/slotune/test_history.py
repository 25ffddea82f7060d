"""slotune incidents, show, changes and export: what they say, and that text from outside stays text."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from detection.errors import ConfigError
from slotune import history
from slotune.commands import history as commands
from tuning.ledger import SqlLedger
from tuning.model import Change, Decision, Diagnosis, OpenChange, Option, Outcome, Plan, Receipt, Record

EVIL = "<script>alert(1)</script> [red]x[/red] \x1b[31m {{ 7*7 }} =1+1"


def plan(incident: str, service: str, *, cost: float = 0.0) -> Plan:
    change = Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8})
    return Plan(
        id=f"plan-{incident}",
        incident_id=incident,
        service=service,
        decided_at_s=100.0,
        mode="act",
        diagnosis=Diagnosis(cause="queueing"),
        chosen=Option(changes=(change,), cost_per_hour=cost),
        reason="the queue is long",
    )


def record(record_id: str, kind: str, incident: str, at_s: float, body: dict[str, object], **more: object) -> Record:
    values = {"id": record_id, "kind": kind, "service": "ranker", "incident_id": incident, "at_s": at_s, "body": body}
    return Record.model_validate(values | more)


def opened(incident: str, at_s: float, reason: str = "P95 is high") -> Record:
    body: dict[str, object] = {
        "symptom": "latency",
        "severity": "critical",
        "tier": "act",
        "opened_at_s": at_s,
        "detected_at_s": at_s,
        "reason": reason,
    }
    return record(incident, "open_incidents", incident, at_s, body)


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Incident i1: changed, proven, kept, closed. i2: refused. i3: just seen, with hostile text. A leased change."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger = SqlLedger.open(url)
    now_s = time.time()
    one, two = plan("i1", "ranker"), plan("i2", "ranker")
    ledger.put(opened("i1", now_s - 400))
    ledger.put(record(one.id, "choose_action", "i1", now_s - 390, one.model_dump(mode="json")))
    intent = record(
        "i1:intent", "adjust_batch_size", "i1", now_s - 385, one.model_dump(mode="json"), phase="intent", parent_id=one.id
    )
    claim = OpenChange(
        plan_id=one.id, service="ranker", incident_id="i1", state="intended", plan=one, opened_at_s=now_s - 385
    )
    ledger.open_change(claim, intent)
    receipt = Receipt(
        id="rc",
        plan_id=one.id,
        service="ranker",
        lever="batch_size",
        before={"batch_size": 1},
        after={"batch_size": 8},
        applied=True,
        changed=True,
        at_s=now_s - 380,
    )
    made = record("rc", "adjust_batch_size", "i1", now_s - 380, receipt.model_dump(mode="json"), parent_id=one.id)
    ledger.update_change(one.id, "made", made)
    outcome = Outcome(
        id="oc",
        plan_id=one.id,
        service="ranker",
        verdict="improved",
        resolved=True,
        at_s=now_s - 200,
        p95_before_ms=200.0,
        p95_after_ms=50.0,
        reason="P95 -75%",
    )
    ledger.put(record("oc", "verify_p95", "i1", now_s - 200, outcome.model_dump(mode="json"), parent_id=one.id))
    decision = Decision(step="keep", next="done", reason="it helped")
    kept = record("kp", "keep", "i1", now_s - 199, decision.model_dump(mode="json"), parent_id="oc")
    ledger.update_change(one.id, "closed", kept)
    ledger.put(
        record("i1:closed", "open_incidents", "i1", now_s - 100, {"closed": True, "reason": "over"}, parent_id="i1")
    )
    ledger.put(opened("i2", now_s - 90))
    ledger.put(record(two.id, "choose_action", "i2", now_s - 80, two.model_dump(mode="json")))
    ledger.put(record("g", "guard", "i2", now_s - 79, {"guard": "freeze", "reason": "weekend"}, parent_id=two.id))
    ledger.put(opened("i3", now_s - 10, EVIL))
    leased = plan("i4", "other", cost=2.0)
    claim = OpenChange(
        plan_id=leased.id, service="other", incident_id="i4", state="leased", plan=leased, opened_at_s=now_s - 7200
    )
    ledger.open_change(claim, record("i4:intent", "scale_replicas", "i4", now_s - 7200, {}))
    return url


def run(*arguments: str) -> tuple[int, str]:
    app = typer.Typer()
    commands.register(app)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.exit_code, result.output


def test_incidents_newest_first_with_what_was_done(url: str) -> None:
    code, output = run("incidents", "--json", "--ledger", url)
    assert code == 0
    rows = {row["id"]: row for row in json.loads(output)}
    assert list(rows) == ["i3", "i2", "i1"]
    assert (rows["i1"]["state"], rows["i1"]["done"], rows["i1"]["verdict"]) == (
        "closed",
        "batch_size 1 -> 8",
        "improved, resolved",
    )
    assert (rows["i2"]["state"], rows["i2"]["done"]) == ("open", "batch_size 1 -> 8: refused (freeze)")
    assert rows["i3"]["done"] == "nothing yet"


def test_incidents_can_be_narrowed(url: str) -> None:
    assert len(json.loads(run("incidents", "--json", "--limit", "2", "--ledger", url)[1])) == 2
    assert json.loads(run("incidents", "--json", "--service", "nobody", "--ledger", url)[1]) == []
    assert json.loads(run("incidents", "--json", "--days", "0.0001", "--ledger", url)[1]) == []
    assert "No incidents." in run("incidents", "--service", "nobody", "--ledger", url)[1]


def test_a_repeated_incident_is_one_row(url: str) -> None:
    ledger = SqlLedger.open(url)
    for n in range(30):
        ledger.put(opened("i1", time.time() - 5).model_copy(update={"id": f"i1:{n}"}))
    rows = json.loads(run("incidents", "--json", "--limit", "3", "--ledger", url)[1])
    assert sorted(row["id"] for row in rows) == ["i1", "i2", "i3"]


def test_show_tells_the_story_in_order(url: str) -> None:
    code, output = run("show", "i1", "--ledger", url)
    assert code == 0
    words = [
        "latency (critical)",
        "The queue is long",
        "applied",
        "improved, resolved: P95 200 ms -> 50 ms",
        "it helped",
    ]
    places = [output.index(word) for word in words]
    assert places == sorted(places)
    kinds = [line["kind"] for line in json.loads(run("show", "i1", "--json", "--ledger", url)[1])]
    assert kinds[0] == "open_incidents"
    assert kinds.count("adjust_batch_size") == 2


def test_show_takes_a_plan_or_a_record_too(url: str) -> None:
    ids = [line["id"] for line in json.loads(run("show", "plan-i1", "--json", "--ledger", url)[1])]
    assert ids == ["plan-i1", "i1:intent", "rc", "oc", "kp"]
    code, output = run("show", "nothing", "--ledger", url)
    assert code == 1
    assert "slotune incidents lists" in output


def test_changes_in_force_with_their_cost(url: str) -> None:
    rows = {row["service"]: row for row in json.loads(run("changes", "--json", "--ledger", url)[1])}
    assert rows["other"]["state"] == "leased"
    assert rows["other"]["cost_so_far"] == pytest.approx(4.0, rel=0.01)
    assert rows["ranker"]["state"] == "kept"
    assert "batch_size 1 -> 8" in run("changes", "--ledger", url)[1]


def test_a_change_that_was_rolled_back_is_not_in_force(url: str) -> None:
    SqlLedger.open(url).put(record("back", "roll_back", "i1", time.time(), {}, parent_id="plan-i1"))
    assert [row["service"] for row in json.loads(run("changes", "--json", "--ledger", url)[1])] == ["other"]


def made(record_id: str, kind: str, at_s: float, after: int, plan_id: str) -> Record:
    body: dict[str, object] = {
        "lever": "batch_size", "before": {"batch_size": 8}, "after": {"batch_size": after}, "applied": True, "changed": True,
    }  # fmt: skip
    return record(record_id, kind, "i9", at_s, body, parent_id=plan_id)


def services_in_force(url: str) -> list[str]:
    return sorted(row["service"] for row in json.loads(run("changes", "--json", "--ledger", url)[1]))


def test_a_kept_change_is_in_force_until_something_else_stands_there(url: str) -> None:
    ledger, now_s = SqlLedger.open(url), time.time()
    ledger.put(made("later", "adjust_batch_size", now_s - 50, 16, "plan-i9"))
    assert services_in_force(url) == ["other"], "a later change stands there, and was not kept"
    ledger.put(made("undone", "roll_back", now_s - 40, 8, "plan-i9:inverse"))
    assert services_in_force(url) == ["other", "ranker"], "the later change was put back to what was kept"


def test_a_kept_change_that_somebody_overwrote_is_not_in_force(url: str) -> None:
    ledger, now_s = SqlLedger.open(url), time.time()
    ledger.put(record("g0", "guard", "i8", now_s - 1000, {"guard": "ownership:batch_size"}))
    assert services_in_force(url) == ["other", "ranker"], "that was before it was made"
    ledger.put(record("g1", "guard", "i9", now_s - 10, {"guard": "ownership:replicas"}))
    assert services_in_force(url) == ["other", "ranker"], "that was another lever"
    ledger.put(record("g2", "guard", "i9", now_s - 5, {"guard": "ownership:batch_size"}))
    assert services_in_force(url) == ["other"]


def test_text_from_outside_stays_text(url: str) -> None:
    _, output = run("show", "i3", "--ledger", url)
    assert "\x1b[31m" not in output, "no terminal escape gets through"
    assert "[red]x[/red]" in output, "markup is shown, not obeyed"
    assert "<script>" in output


def test_export_csv(url: str, tmp_path: Path) -> None:
    code, output = run("export", "--to", str(tmp_path / "out.csv"), "--ledger", url)
    assert code == 0
    with (tmp_path / "out.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert f"{len(rows)} records" in output
    assert len(rows) == 12
    assert json.loads(next(r for r in rows if r["id"] == "i3")["body"])["reason"] == EVIL


def test_export_csv_runs_no_formula(url: str, tmp_path: Path) -> None:
    SqlLedger.open(url).put(Record(id="=cmd()", kind="hold", service="@x", at_s=1.0, body={}))
    run("export", "--to", str(tmp_path / "out.csv"), "--ledger", url)
    assert "'=cmd(),hold,result,'@x" in (tmp_path / "out.csv").read_text()


def test_export_parquet(url: str, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    run("export", "--to", str(tmp_path / "out.parquet"), "--ledger", url)
    table = parquet.read_table(tmp_path / "out.parquet")
    assert table.num_rows == 12
    assert table.column_names == list(history.EXPORT_COLUMNS)


def test_an_export_that_fails_leaves_the_old_file(url: str, tmp_path: Path) -> None:
    (tmp_path / "out.csv").write_text("old")
    with pytest.raises(ConfigError, match=r"neither \.csv nor \.parquet"):
        run("export", "--to", str(tmp_path / "out.txt"), "--ledger", url)
    with pytest.raises(ConfigError, match="cannot be written"):
        run("export", "--to", str(tmp_path / "none" / "out.csv"), "--ledger", url)

    class Broken:
        def pages(self, **_: object) -> object:
            yield []
            raise OSError(28, "No space left on device")

    with pytest.raises(ConfigError, match="No space left"):
        history.export(Broken(), tmp_path / "out.csv", since_s=None)  # type: ignore[arg-type]
    assert (tmp_path / "out.csv").read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".out")] == []
