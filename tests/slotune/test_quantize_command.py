"""`slotune quantize` on its own: the table, the files, the exit codes, and a sentence for every mistake."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from typer.testing import CliRunner, Result

from slotune.commands.quantize import register
from tests.fakes.quantization import spiky, tiny


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for zoo in (tiny(), spiky()):
        onnx.save(zoo.proto, str(tmp_path / f"{zoo.name}.onnx"))
        np.savez(tmp_path / f"{zoo.name}.npz", input=zoo.inputs, labels=zoo.labels)
    return tmp_path


def run(folder: Path, model: str, *more: str, data: str | None = None) -> Result:
    app = typer.Typer()
    register(app)
    app.command("other")(lambda: None)
    rows = folder / (data or f"{model}.npz")
    arguments = ["quantize", str(folder / f"{model}.onnx"), "--calibration", str(rows), "--out", str(folder / "out")]
    return CliRunner().invoke(app, [*arguments, *more], env={"COLUMNS": "160"})


def test_a_model_that_passes(folder: Path) -> None:
    result = run(folder, "mlp", "--min-speedup", "0.01", "--batch", "1", "--batch", "4")
    assert result.exit_code == 0, result.output
    assert "passed: every gate" in result.output
    assert "speed at batch 4" in result.output
    assert (folder / "out" / "mlp.ort-int8.onnx").is_file()
    report = json.loads((folder / "out" / "report.json").read_text())
    assert [row["batch"] for row in report["latency"]] == [1, 4]


def test_a_model_that_is_not_faster_is_refused_and_not_written(folder: Path) -> None:
    result = run(folder, "mlp", "--min-speedup", "1000")
    assert result.exit_code == 1
    assert "refused: speed at batch 1" in result.output
    assert not (folder / "out" / "mlp.ort-int8.onnx").exists()
    assert (folder / "out" / "report.json").is_file()


def test_layers_that_were_left_out_are_named(folder: Path) -> None:
    result = run(folder, "outlier", "--min-speedup", "0.01")
    assert result.exit_code == 0, result.output
    assert "left in FP32 because INT8 harmed them most: gemm_2, gemm_4" in result.output


def test_a_tensorrt_engine_with_its_facts(folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    result = run(folder, "mlp", "--target", "tensorrt", "--compute-capability", "8.9")
    assert result.exit_code == 0, result.output
    assert "prove its speed on the target" in result.output
    facts = json.loads((folder / "out" / "engine.json").read_text())
    assert (facts["compute_capability"], facts["precision"]) == ("8.9", "int8")
    assert (folder / "out" / "model.plan").stat().st_size > 1000


def test_labels_from_a_file_of_their_own(folder: Path) -> None:
    np.savez(folder / "bare.npz", input=tiny().inputs)
    np.save(folder / "y.npy", tiny().labels)
    result = run(folder, "mlp", "--min-speedup", "0.01", "--labels", str(folder / "y.npy"), data="bare.npz")
    assert result.exit_code == 0, result.output
    assert "accuracy drop" in result.output


def test_a_metric_of_ones_own(folder: Path) -> None:
    result = run(folder, "mlp", "--min-speedup", "0.01", "--metric", "tests.fakes.quantization:among_the_best_three")
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "out" / "report.json").read_text())["accuracy"]["metric"] == "among_the_best_three"


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--compute-capability", "8.9"], "--compute-capability is for --target tensorrt only"),
        (["--target", "tensorrt", "--compute-capability", "ada"], "'ada' is no compute capability"),
        (["--batch", "0"], "--batch must be 1 or more"),
        (["--max-accuracy-drop", "5"], "--max-accuracy-drop is a share"),
        (["--min-agreement", "99"], "--min-agreement is a share"),
        (["--value-range", "0", "1"], "lie outside 0..1"),
        (["--metric", "closeness"], "names no metric"),
        (["--metric", "no_such_package:closeness"], "cannot be imported"),
        (["--metric", "math:pi"], "is no function"),
        (["--metric", "math:sqrt"], "the metric failed: TypeError"),
        (["--labels", "absent.npy"], "there are no labels at absent.npy"),
    ],
)
def test_mistakes_are_sentences(folder: Path, more: list[str], words: str) -> None:
    result = run(folder, "mlp", *more)
    assert result.exit_code == 2
    assert words in result.output
    assert "Traceback" not in result.output


def test_unusable_files_are_sentences(folder: Path) -> None:
    (folder / "noise.onnx").write_bytes(b"\xff\x00junk" * 100)
    np.savez(folder / "noise.npz", input=tiny().inputs)
    np.savez(folder / "wide.npz", input=np.ones((100, 65), np.float32))
    for model, data, words in (
        ("absent", "mlp.npz", "there is no model at"),
        ("noise", "noise.npz", "corrupt or cut short"),
        ("mlp", "absent.npz", "there is no calibration data at"),
        ("mlp", "wide.npz", "has the shape [100, 65]"),
    ):
        result = run(folder, model, data=data)
        assert result.exit_code == 2, result.output
        assert words in result.output.replace("\n", " ")


def test_an_out_folder_that_is_a_file(folder: Path) -> None:
    (folder / "out").write_text("in the way")
    result = run(folder, "mlp", "--min-speedup", "0.01")
    assert result.exit_code == 2
    assert "cannot be written" in result.output
