"""`slotune quantize` on its own: the table, the files, the exit codes, and a sentence for every mistake."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
import typer
from typer.testing import CliRunner, Result

from demo.processes import wait_until
from slotune.commands._quantize_files import write_result
from slotune.commands.quantize import register
from tests.fakes.quantization import judged, spiky, tiny
from tuning.errors import QuantizationRefused
from tuning.quantization.onnx_model import digest_of


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
        (["--output", "logits"], "no output of numbers called 'logits'"),
        (["--min-speedup", "nan"], "--min-speedup more than 0"),
        (["--workspace", "lots"], "'lots' is no memory limit"),
        (["--workspace", "99999999999999GiB"], "more memory than any machine has"),
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


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "out").iterdir()}


def test_the_same_run_again_gives_the_same_model(folder: Path) -> None:
    assert run(folder, "mlp", "--min-speedup", "0.01").exit_code == 0
    first = files(folder)
    assert run(folder, "mlp", "--min-speedup", "0.01").exit_code == 0
    again = files(folder)
    assert first["mlp.ort-int8.onnx"] == again["mlp.ort-int8.onnx"]
    reports = [json.loads(found["report.json"]) for found in (first, again)]
    assert reports[0]["artefact"] == reports[1]["artefact"] == digest_of(first["mlp.ort-int8.onnx"])


def test_a_refusal_leaves_no_model_of_an_earlier_run_beside_its_report(folder: Path) -> None:
    assert run(folder, "mlp", "--min-speedup", "0.01").exit_code == 0
    assert run(folder, "mlp", "--min-speedup", "1000").exit_code == 1
    assert sorted(files(folder)) == ["report.json"]


def test_a_full_disk_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "report.json").write_text("{}")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(QuantizationRefused, match="cannot be written: File too large"):
            write_result(tmp_path / "out", "mlp", judged(True, b"x" * 5000), None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert files(tmp_path) == {"report.json": b"{}"}


def test_a_folder_that_cannot_be_made_is_said_before_the_work(folder: Path) -> None:
    (folder / "out").write_text("a file")
    result = run(folder, "mlp", data="absent.npz")  # a mistake that is found later
    assert result.exit_code == 2
    assert "is no folder" in result.output


@pytest.mark.parametrize("when", ["*", "slotune-int8-*"])  # while libraries are being imported, while INT8 is made
@pytest.mark.parametrize(("sign", "code"), [(signal.SIGINT, 130), (signal.SIGKILL, -signal.SIGKILL)])
def test_a_stopped_run_leaves_nothing(folder: Path, sign: signal.Signals, code: int, when: str) -> None:
    (folder / "scratch").mkdir()
    main = "from slotune.cli import main; main()"
    command = [sys.executable, "-c", main, "quantize", "mlp.onnx", "--calibration", "mlp.npz", "--out", "out"]
    scratch = {**os.environ, "TMPDIR": str(folder / "scratch")}
    child = subprocess.Popen(command, cwd=folder, env=scratch, stderr=subprocess.PIPE, text=True)
    wait_until(lambda: any((folder / "scratch").glob(when)), 60.0, "the build", every_s=0.01)
    child.send_signal(sign)
    _, said = child.communicate(timeout=60)
    assert child.returncode == code, said
    assert "Traceback" not in said
    assert not (folder / "out").exists()
    if sign == signal.SIGINT:
        assert "stopped" in said
        left = {path.name for path in (folder / "scratch").iterdir()} - {".ses"}  # ONNX Runtime's own
        assert not left


def test_brackets_in_names_are_no_markup(folder: Path) -> None:
    result = run(folder, "mlp", data="rows[/old][1].npz")
    assert result.exit_code == 2
    assert "rows[/old][1].npz" in result.output


def test_an_engine_of_a_model_with_a_fixed_batch(folder: Path) -> None:
    pytest.importorskip("tensorrt_rtx")
    proto = onnx.load(str(folder / "mlp.onnx"))
    for value in (proto.graph.input[0], proto.graph.output[0]):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(proto, str(folder / "mlp.onnx"))
    result = run(folder, "mlp", "--target", "tensorrt", "--compute-capability", "8.9")
    assert result.exit_code == 0, result.output
    assert json.loads((folder / "out" / "engine.json").read_text())["batch"] == [4, 4, 4]
