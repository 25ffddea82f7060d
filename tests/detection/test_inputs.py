"""Checks of inputs: what is odd is named, quiet days that nothing was chosen on hardly ever are, files that are none."""

from __future__ import annotations

import os

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from detection.errors import ConfigError
from detection.input_files import read
from detection.inputs import MIN_DAYS, Rows, check

DAY_S = 86_400.0
DAYS = 10


def inputs(seed: int, *, days: int = DAYS, rows: int = 200, columns: int = 4) -> Rows:
    """Quiet days: each column has a level of its own each day that wanders (autocorrelation 0.5), and a weekend."""
    rng = np.random.default_rng(seed)
    names = [*(f"x{k}" for k in range(columns)), "kind"]
    spread = {name: rng.uniform(0.02, 0.25) for name in names}
    weekend = {name: rng.normal(0, 0.1) for name in names}
    wander, found, times = dict.fromkeys(names, 0.0), {name: [] for name in names}, []
    for day in range(days):
        times.append(day * DAY_S + np.sort(rng.uniform(1, DAY_S, rows)))
        for name in names:
            wander[name] = 0.5 * wander[name] + rng.normal() * spread[name] * np.sqrt(0.75)
            level = wander[name] + (weekend[name] if day % 7 >= 5 else 0.0)
            if name == "kind":
                weights = np.array([5.0, 3.0, 2.0]) * np.exp([level, 0.0, -level])
                found[name].append(rng.choice(["a", "b", "c"], rows, p=weights / weights.sum()).astype(object))
            else:
                found[name].append(rng.normal(level, 1.0, rows))
    return Rows({name: np.concatenate(values) for name, values in found.items()}, np.concatenate(times))


def split(whole: Rows) -> tuple[Rows, Rows]:
    """The days before the newest, and the newest."""
    newest = whole.newest()
    return whole.before(float(newest.times.min()) - 1e-6), newest


def findings(reference: Rows, sample: Rows, **kwargs):
    found = check(reference, sample, **({"now_s": DAYS * DAY_S, "fresh_s": DAY_S} | kwargs))
    return {one.check: one for one in found}


def changed(rows: Rows, **columns) -> Rows:
    return Rows({**rows.columns, **columns}, rows.times)


def test_quiet_days_are_hardly_ever_odd_where_textbook_limits_nearly_always_fire():
    """Seeds that nothing was chosen on. At a true rate of 2 % five or more of 40 are seen once in 900 such tests."""
    ours = textbook = 0
    for seed in range(5_000, 5_040):
        reference, newest = split(inputs(seed))
        ours += any(one.odd for one in findings(reference, newest).values())
        textbook += any(
            stats.ks_2samp(reference.columns[name].astype(float), newest.columns[name].astype(float)).pvalue < 0.05
            for name in ("x0", "x1", "x2", "x3")
        )
    assert ours <= 4
    assert textbook >= 25


def test_a_drift_that_is_beyond_what_days_show_is_named_with_its_column():
    reference, newest = split(inputs(1))
    found = findings(reference, changed(newest, x2=newest.columns["x2"] + 2.0))["drift"]
    assert found.odd and found.column == "x2" and found.sentence.startswith("x2 has drifted; x2: KS 0.")
    assert found.psi > found.psi_limit


def test_a_category_that_takes_over_is_a_drift():
    reference, newest = split(inputs(2))
    found = findings(reference, changed(newest, kind=np.full(newest.count, "c", dtype=object)))["drift"]
    assert found.odd and found.column == "kind"


@pytest.mark.parametrize(
    ("check_name", "column", "values", "said"),
    [
        ("missing", "x1", lambda x: np.where(np.arange(x.size) % 5 == 0, np.nan, x), "% of x1 is missing"),
        ("outside", "x1", lambda x: np.where(np.arange(x.size) % 5 == 0, 99.0, x), "of x1 lies outside"),
        ("outside", "kind", lambda x: np.where(np.arange(x.size) % 5 == 0, "z", x), "of kind lies outside"),
    ],
)
def test_what_is_missing_or_never_was_is_named(check_name, column, values, said):
    reference, newest = split(inputs(3))
    odd = values(newest.columns[column])
    found = findings(reference, changed(newest, **{column: odd.astype(newest.columns[column].dtype)}))[check_name]
    assert found.odd and said in found.sentence and found.column == column


def test_columns_that_go_come_or_change_their_kind_are_named():
    reference, newest = split(inputs(4))
    other = Rows({"x0": newest.columns["kind"], "x1": newest.columns["x1"], "new": newest.columns["x2"]}, newest.times)
    found = findings(reference, other)["schema"]
    assert found.odd and "x2 is missing, x3 is missing, kind is missing and 2 more" in found.sentence
    assert not findings(reference, newest)["schema"].odd


def test_inputs_that_stand_still_are_old():
    reference, newest = split(inputs(5))
    assert not findings(reference, newest)["age"].odd
    old = findings(reference, newest, now_s=(DAYS + 2) * DAY_S)["age"]
    assert old.odd and "48" in old.sentence and "24.0 h are expected" in old.sentence


def test_too_few_days_say_nothing_of_how_days_differ():
    reference, newest = split(inputs(6, days=MIN_DAYS))
    found = findings(reference, newest)
    assert found["drift"].ratio is None and f"has {MIN_DAYS - 1} days with 50 rows, {MIN_DAYS} are needed" in found["drift"].sentence
    assert findings(*split(inputs(6, days=MIN_DAYS + 1)))["drift"].ratio is not None
    assert findings(reference, Rows({n: v[:9] for n, v in newest.columns.items()}, newest.times[:9]))["drift"].ratio is None


def test_the_same_rows_give_the_same_answer():
    reference, newest = split(inputs(7))
    assert findings(reference, newest) == findings(reference, newest)


def frame() -> pd.DataFrame:
    when = pd.to_datetime(["2026-11-01T00:00Z", "2026-11-01T12:00+01:00", "soon", "2026-11-02T00:00Z"], errors="coerce", utc=True, format="mixed")
    return pd.DataFrame({"at": when.astype(str), "x": [1.5, None, 2.0, 3.0], "kind": ["a", None, "b", "c"], "id": [1, 2, 3, 4]})


@pytest.mark.parametrize("ending", [".csv", ".csv.gz", ".parquet"])
def test_files_are_read_alike(tmp_path, ending):
    file = tmp_path / f"rows{ending}"
    frame().to_parquet(file) if ending == ".parquet" else frame().to_csv(file, index=False)
    rows = read(str(file), "at", ("id",))
    assert rows.times.tolist() == [1793491200.0, 1793530800.0, 1793577600.0]
    assert set(rows.columns) == {"x", "kind"} and rows.columns["kind"].tolist() == ["a", None, "c"]
    assert rows.columns["x"][0] == 1.5 and np.isnan(rows.columns["x"][1])


def test_without_a_column_a_rows_time_is_its_files(tmp_path):
    for day in (1, 2):
        pd.DataFrame({"x": [day]}).to_csv(tmp_path / f"{day}.csv", index=False)
        os.utime(tmp_path / f"{day}.csv", (day * DAY_S, day * DAY_S))
    rows = read(str(tmp_path))
    assert rows.times.tolist() == [DAY_S, 2 * DAY_S] and rows.columns["x"].tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        (None, b"", "there is no such file or folder"),
        ("a.json", b"{}", "is neither CSV nor Parquet"),
        ("a.parquet", b"PAR1 nonsense", "cannot be read"),
        ("a.csv", b"", "cannot be read"),
        ("a.csv", b"x,y\n1,2\n", "has no column 'at'"),
        ("a.csv", b"at,y\nlater,2\n", "holds no rows with a time"),
        ("folder", None, "the folder holds no file"),
    ],
)
def test_what_is_no_sample_is_one_sentence(tmp_path, name, content, said):
    file = tmp_path / (name or "none.csv")
    if content is None:
        file.mkdir()
    elif name:
        file.write_bytes(content)
    with pytest.raises(ConfigError, match=said) as caught:
        read(str(file), "at")
    assert str(file) in str(caught.value) and "\n" not in str(caught.value)
