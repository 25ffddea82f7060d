"""`slotune backtest` as a user types it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

from detection.errors import ConfigError
from slotune.commands import backtest


def app() -> typer.Typer:
    made = typer.Typer()

    @made.callback()
    def root() -> None: ...

    backtest.register(made)
    return made


def run(*arguments: str) -> Exception | None:
    result = CliRunner().invoke(app(), ["backtest", *arguments])
    return result.exception if isinstance(result.exception, Exception) else None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    place = tmp_path / "recorded"
    place.mkdir()
    at = 1_700_006_400 + 300 * np.arange(3 * 288)
    for name in ("a", "b"):
        p95 = 30 * np.exp(0.05 * rng.normal(size=at.size))
        if name == "b":
            p95[-40:-20] *= 6
        rows = [f"{t},{v:.3f},{100 + i % 7}" for i, (t, v) in enumerate(zip(at, p95, strict=True))]
        (place / f"{name}.csv").write_text("timestamp,p95_ms,qps\n" + "\n".join(rows) + "\n")
    return place


def test_a_folder_of_services_at_two_resolutions(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--recorded", str(folder), "--out", str(out), "--tier", "warn", "--slo-p95-ms", "100"]
    assert run(*arguments, "--resolution", "5m", "--resolution", "15m", "--learn-every", "12h") is None
    for step in ("300s", "900s"):
        summary = json.loads((out / step / "summary.json").read_text())
        assert summary["by_service"]["b"]["alarms"] >= 1
        assert summary["by_detector"]["rules"] >= 1
        assert summary["services"] == 2
        header, *rows = (out / step / "flags.csv").read_text().splitlines()
        assert header == "series,timestamp,flag,score"
        assert {row.split(",")[0] for row in rows} == {"a", "b"}
        assert list((out / step).glob("*.png"))


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--out", "x"], "either --recorded PATH or --prometheus"),
        (["--out", "x", "--recorded", "nowhere.csv"], "no such file"),
        (["--out", "x", "--recorded", ".", "--tier", "loud"], "not a tier; known: act, warn"),
        (["--out", "x", "--recorded", ".", "--resolution", "soon"], "not a duration"),
        (["--out", "x", "--recorded", ".", "--labels", "none.csv"], "labels cannot be read"),
        (["--out", "x", "--recorded", ".", "--act-per-week", "99"], "alarm budget"),
        (["--out", "x", "--prometheus", "http://p"], "needs --config"),
    ],
)
def test_a_mistake_is_a_sentence(
    arguments: list[str], says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    error = run(*arguments)
    assert isinstance(error, ConfigError)
    assert says in str(error)
