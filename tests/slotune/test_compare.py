"""`slotune compare`: how sides are named, read, said and drawn."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from detection.errors import ConfigError
from detection.model import Lever, MetricWindow, Reading, Service, Slo, Span
from slotune.cli import build_app
from slotune.comparison.page import page
from slotune.comparison.sides import Wanted, parse, read
from slotune.comparison.words import render
from tuning.cost import beside
from tuning.report.comparison_words import conclusion, effect
from tuning.verification.comparison import Line, compare
from tuning.verification.settings import VerificationSettings

NOW_S = 1_800_000_000.0
SERVICE = Service(
    name="ranker", serving="triton", slo=Slo(p95_ms=100), selectors={"model": "ranker"}, queries={"accuracy": "avg(acc)"},
    levers={"replicas": Lever(name="replicas", actuator="kubernetes", cost_per_hour=2.0)},
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("version=7", Wanted("version=7", (("version", "7"),))),
        ("-2h/-1h", Wanted("-2h/-1h", (), NOW_S - 7200, NOW_S - 3600)),
        ("-30m/now", Wanted("-30m/now", (), NOW_S - 1800, NOW_S)),
        ("instance=10.0.0.7:8000,-1h/", Wanted("instance=10.0.0.7:8000,-1h/", (("instance", "10.0.0.7:8000"),), NOW_S - 3600, NOW_S)),
        ("a.csv", Wanted("a.csv", file=Path("a.csv"))),
        ("a.csv,-2h/-1h", Wanted("a.csv,-2h/-1h", (), NOW_S - 7200, NOW_S - 3600, Path("a.csv"))),
    ],
)  # fmt: skip
def test_what_a_side_means(text, wanted):
    assert parse(text, NOW_S) == wanted


def test_times_without_a_zone_are_utc():
    start = datetime(2027, 1, 15, 6, 0, tzinfo=UTC).timestamp()
    assert parse("2027-01-15T06:00/2027-01-15T06:30", NOW_S).start_s == start


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("seven", "names no side: write label=value"),
        ("", "a side is empty"),
        ("-1h/-2h", "ends before it starts"),
        ("-1h/2030-01-01", "reaches into the future"),
        ("-1x/now", "is no time"),
        ("a.csv,version=7", "a recording has no labels"),
        ("-2h/-1h,-4h/-3h", "names no side"),
    ],
)
def test_what_no_side_is_ends_in_a_sentence(text, said):
    with pytest.raises(ConfigError, match=said):
        parse(text, NOW_S)


class Source:
    """A metrics source that keeps what it was asked and answers with one window."""

    def __init__(self, values=None):
        self.asked = []
        self.values = values if values is not None else {"p95_ms": 80.0, "qps": 10.0, "replicas": 3.0}

    def read(self, services, signals, span):
        self.asked.append((services[0], signals, span))
        found = {name: np.full(span.points, v) for name, v in self.values.items()}
        return Reading({"ranker": MetricWindow("ranker", span, found)} if found else {}, {})


def test_labels_narrow_the_selectors_and_a_query_that_heeds_none_is_left_out():
    source = Source()
    _, notes = read(parse("version=7", NOW_S), SERVICE, lambda: source, now_s=NOW_S, last_s=3600, step_s=60)
    service, signals, span = source.asked[0]
    assert service.selectors == {"model": "ranker", "version": "7"}
    assert "accuracy" not in signals and notes == (
        "accuracy is left out: its query takes no selectors, so it cannot tell the sides apart.",)  # fmt: skip
    assert span.end_s == NOW_S and span.start_s == NOW_S - 3600 and span.step_s == 60


def test_times_alone_leave_the_selectors_and_every_signal():
    source = Source()
    read(parse("-2h/-1h", NOW_S), SERVICE, lambda: source, now_s=NOW_S, last_s=3600, step_s=60)
    assert source.asked[0][0].selectors == {"model": "ranker"} and "accuracy" in source.asked[0][1]


def test_a_side_that_shows_nothing_is_named():
    with pytest.raises(ConfigError, match="no series of ranker for 'version=9'"):
        read(parse("version=9", NOW_S), SERVICE, lambda: Source({}), now_s=NOW_S, last_s=3600, step_s=60)


def test_cost_needs_a_price_replicas_and_traffic():
    span = Span(0, 120, 60)
    window = MetricWindow("ranker", span, {"replicas": np.array([2.0, 2, 2]), "qps": np.array([10.0, 0, np.nan])})
    ((signal, found, other),) = beside(SERVICE, window, window)
    assert signal.name == "cost_per_1000" and np.array_equal(found, other, equal_nan=True)
    assert found[0] == pytest.approx(2 * 2.0 / 36.0) and np.isnan(found[1:]).all()
    assert beside(SERVICE.model_copy(update={"levers": {}}), window, window) == ()
    assert beside(SERVICE, window, MetricWindow("ranker", span, {})) == ()


def recording(folder: Path, name: str, p95: float, seed: int) -> Path:
    rng = np.random.default_rng(seed)
    lines = ["timestamp,p95_ms,qps"]
    lines += [f"{NOW_S + 60 * i:.0f},{p95 * np.exp(0.05 * rng.normal()):.3f},{50 + rng.normal():.3f}" for i in range(60)]
    file = folder / name
    file.write_text("\n".join(lines))
    return file


def test_two_recordings_without_any_configuration(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recording(tmp_path, "a.csv", 100, 1)
    recording(tmp_path, "b.csv", 290, 2)
    done = CliRunner().invoke(build_app(["compare"]), ["compare", "a.csv", "b.csv"])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("B (b.csv) is worse than A (a.csv): P95 latency +19")
    as_json = CliRunner().invoke(build_app(["compare"]), ["compare", "a.csv", "b.csv", "--json", "--html", "out.html"])
    body = json.loads(as_json.stdout)
    assert body["verdict"] == "different" and {line["signal"] for line in body["lines"]} == {"p95_ms", "qps"}
    html = (tmp_path / "out.html").read_text()
    assert "is worse than A" in html and html.count("<svg") >= 3


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["a.csv", "a.csv"], "there is nothing to compare"),
        (["a.csv", "gone.csv"], "there is no such file"),
        (["a.csv", "odd.csv"], "none of its columns is a signal"),
        (["a.csv", "b.csv", "--html", "no/such/folder.html"], "cannot be written"),
        (["a.csv", "slow.csv"], "points every 60 s and every 300 s"),
    ],
)
def test_mistakes_are_sentences(tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    recording(tmp_path, "a.csv", 100, 1)
    recording(tmp_path, "b.csv", 100, 2)
    (tmp_path / "odd.csv").write_text("timestamp,colour\n0,1\n60,2\n120,1")
    (tmp_path / "slow.csv").write_text("timestamp,p95_ms\n" + "\n".join(f"{300 * i},100" for i in range(20)))
    done = CliRunner().invoke(build_app(["compare"]), ["compare", *arguments])
    assert done.exit_code != 0 and said in str(done.exception)


def test_the_page_escapes_what_it_is_given_and_says_what_the_command_line_says():
    span = Span(0, 59 * 60, 60)
    rng = np.random.default_rng(1)
    sides = [MetricWindow("r", span, {"p95_ms": level * np.exp(0.02 * rng.normal(size=60))}) for level in (100, 100.5)]
    found = compare(sides[0], sides[1], VerificationSettings())
    html = page(found, ("<script>", "b"), "ranker", sides)
    assert "<script>" not in html and "&lt;script&gt;" in html
    assert "is the same as A" in conclusion(found, "a", "b") and "is the same as A" in html
    assert "same" in render(found, "a", "b")


@pytest.mark.parametrize(
    ("ratio", "unit", "number", "said"),
    [
        (True, "ms", 0.7, "-30%"), (True, "ms", 2.9, "+190%"), (True, "ms", 282.35, "x 282"), (True, "ms", None, "-"),
        (True, "ms", 5330.4, "x 5,330"), (True, "ms", 999.7, "x 1,000"),
        (False, "share", 0.012, "+1.20 points"), (False, "", -2.53e-8, "+0"), (False, "", -0.25, "-0.25"),
    ],
)  # fmt: skip
def test_a_difference_is_said_in_figures_that_a_person_reads(ratio: bool, unit: str, number: float | None, said: str) -> None:
    line = Line("p95_ms", "P95", unit, ratio, None, None, number, None, None, "same", "")
    assert effect(line, number) == said
