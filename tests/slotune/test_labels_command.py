"""slotune label and labels: a person's word beside what an incident's end says, both kept, the newest counts."""

from __future__ import annotations

import csv
import io
import json
import time

import pytest
import typer
from typer.testing import CliRunner

from detection.errors import ConfigError
from detection.ranker_fitting import Example
from slotune.commands import labels as commands
from tests.fakes.world import KeptMails, World, parts
from tests.slotune.test_history import EVIL, opened, plan, record
from tuning.ledger import SqlLedger
from tuning.loop.adapt import adapt
from tuning.loop.examples import STATE
from tuning.orders import ORDER
from tuning.query import Query


@pytest.fixture
def url(tmp_path) -> str:
    """i1 closed by itself though a change was allowed, i2 is open with a hostile reason."""
    url = f"sqlite:///{tmp_path / 'ledger.db'}"
    ledger, now_s = SqlLedger.open(url), time.time()
    ledger.put(opened("i1", now_s - 400))
    ledger.put(record("p", "choose_action", "i1", now_s - 390, plan("i1", "ranker").model_dump(mode="json")))
    ledger.put(record("i1:closed", "open_incidents", "i1", now_s - 300, {"closed": True}, parent_id="i1"))
    ledger.put(opened("i2", now_s - 10, EVIL))
    return url


def run(*arguments: str) -> str:
    app = typer.Typer()
    commands.register(app)
    result = CliRunner().invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def rows(url: str, *more: str) -> dict[str, dict[str, object]]:
    return {row["incident"]: row for row in json.loads(run("labels", "--json", "--ledger", url, *more))}


def test_without_a_word_the_end_speaks_weakly_and_an_open_incident_says_nothing(url):
    found = rows(url)
    assert (found["i1"]["label"], found["i1"]["strength"]) == ("not_real", "weak")
    assert (found["i2"]["label"], found["i2"]["strength"], found["i2"]["by"]) == ("", "", "it is still open")


def test_a_persons_word_counts_more_than_the_end(url):
    assert "incident i1 was a real problem" in run("label", "i1", "real", "--why", "a load test", "--ledger", url)
    found = rows(url)["i1"]
    assert (found["label"], found["strength"], found["why"], found["disputed"]) == ("real", "strong", "a load test", False)
    assert found["who"]


def test_the_newest_of_two_opposite_words_counts_and_both_stay(url):
    run("label", "i2", "real", "--ledger", url)
    said = run("label", "i2", "not-real", "--ledger", url)
    assert "had called it a real problem" in said and "the newest word counts, both are kept" in said
    assert said.count("\n") == 1
    assert (rows(url)["i2"]["label"], rows(url)["i2"]["disputed"]) == ("not_real", True)
    assert len(SqlLedger.open(url).find(Query(kinds=(ORDER,), parent_ids=("i2",)))) == 2


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [(("nothing", "real"), "holds no incident 'nothing'"), (("i1", "perhaps"), "real or not-real, not 'perhaps'"),
     (("\x1b[31m", "real"), r"holds no incident '\\x1b"), (("p", "real"), "holds no incident 'p'")],
)  # fmt: skip
def test_what_means_nothing_is_a_sentence_and_no_record(url, arguments, sentence):
    with pytest.raises(ConfigError, match=sentence):
        run("label", *arguments, "--ledger", url)
    assert not SqlLedger.open(url).find(Query(kinds=(ORDER,)))


def test_as_csv_no_cell_is_a_formula(url):
    run("label", "i1", "not-real", "--why", "=1+1", "--ledger", url)
    found = list(csv.DictReader(io.StringIO(run("labels", "--csv", "--ledger", url))))
    assert [row["incident"] for row in found] == ["i2", "i1"] and found[1]["why"] == "'=1+1"


def test_it_can_be_narrowed_and_shown_as_a_table(url):
    assert rows(url, "--service", "nobody") == {} and list(rows(url, "--days", "0.001")) == ["i2"]
    assert "No incidents." in run("labels", "--service", "nobody", "--ledger", url)
    shown = run("labels", "--ledger", url)
    assert "it closed by itself" in shown and "Nothing was learned from labels yet." in shown
    with pytest.raises(ConfigError, match="not both"):
        run("labels", "--csv", "--json", "--ledger", url)


def test_what_labels_taught_about_a_service_stands_below(url):
    ledger = SqlLedger.open(url)
    known = [Example(f"x{n}", "ranker", 50.0, {"act_reach": 1.1 if n < 3 else 3.0}, n >= 3) for n in range(6)]
    adapt(parts(World(), ledger, KeptMails()), known, 100.0)
    ledger.put_blob(STATE, b"so many are missing", at_s=1.0)
    shown = run("labels", "--ledger", url)
    assert "so many are missing" in shown and "ranker: stricter: of 6 labelled incidents" in shown
