"""python -m benchmarks.quantization: INT8 against FP32 on this machine - speed, accuracy, engine sizes, the swap.

Every figure goes through the product's own code: the same quantiser, gates and timing as `slotune quantize`. TensorRT
engines are built without a GPU (TensorRT-RTX, compute capability 8.9): their sizes are real, no GPU speed is claimed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from pathlib import Path

from rich.console import Console
from rich.table import Table

from benchmarks.quantization.models import ZOO, ZooModel
from tuning.quantization.artefacts import Quantiser
from tuning.quantization.calibration import CalibrationData, from_arrays, split
from tuning.quantization.measure import Effort
from tuning.quantization.onnx_model import LoadedModel, from_proto
from tuning.quantization.pipeline import Recipe, quantize
from tuning.quantization.tensorrt_engine import Profile, build_engine

CAPABILITY = "8.9"
WANTED = {"conv": 2.0, "mlp": 4.0, "transformer": 3.0}
"""Speed-up that INT8 must reach at every batch size; models that are not named must be refused or cured."""
RESULT = Path("benchmarks/results/quantization.json")


def measure(zoo: ZooModel, batches: tuple[int, ...], effort: Effort) -> dict[str, object]:
    """One model: the product's judgement for ONNX Runtime and the two TensorRT engines."""
    model = from_proto(zoo.proto, name=zoo.name)
    data = from_arrays({"input": zoo.inputs, "labels": zoo.labels}, model, source=zoo.name)
    started_s = time.perf_counter()
    made = quantize(model, data, Recipe(batches=batches, effort=effort))
    took_s = time.perf_counter() - started_s
    evidence = made.evidence()
    return {
        "fp32_mb": len(model.data) / 1e6,
        "int8_mb": len(made.artefact.data) / 1e6,
        "whole_s": round(took_s, 1),
        "passed": made.judgement.passed,
        "refusal": made.judgement.refusal,
        "accuracy": evidence["accuracy"],
        "latency": evidence["latency"],
        "excluded_layers": evidence["excluded_layers"],
        "engines": engines(model, data),
    }


def engines(model: LoadedModel, data: CalibrationData) -> dict[str, float]:
    """Megabytes of the FP32 and INT8 engine, and the seconds that each took to build."""
    with Quantiser(model, split(data)[0], "tensorrt") as quantiser:
        int8 = quantiser.make()
    sizes: dict[str, float] = {}
    for name, onnx_data in (("fp32", model.data), ("int8", int8.data)):
        started_s = time.perf_counter()
        engine = build_engine(
            onnx_data, model, precision=name, profile=Profile(1, 8, 32), compute_capability=CAPABILITY
        )
        sizes[f"{name}_mb"] = len(engine.data) / 1e6
        sizes[f"{name}_s"] = round(time.perf_counter() - started_s, 2)
    sizes["shrinks"] = sizes["fp32_mb"] / sizes["int8_mb"]
    return sizes


def verdict(name: str, found: dict[str, object]) -> str:
    """Whether the model reached what is asked of it: "yes", or what is missing."""
    wanted = WANTED.get(name)
    rows = found["latency"]
    assert isinstance(rows, list)
    if wanted is None:
        return "yes (refused)" if not found["passed"] else "passes"
    slow = [row["batch"] for row in rows if row["speedup"]["value"] < wanted]
    if not found["passed"]:
        return f"no: {found['refusal']}"
    return f"no: under {wanted:g}x at batch {slow}" if slow else "yes"


def show(console: Console, results: dict[str, dict[str, object]]) -> None:
    table = Table(
        "model",
        "batch",
        "FP32 p50/p95 ms",
        "INT8 p50/p95 ms",
        "speed-up (95 %)",
        "wall",
        "agree",
        "accuracy",
        "reached",
    )
    sizes = Table("model", "ONNX MB", "INT8 MB", "engine FP32 MB", "engine INT8 MB", "shrinks", "build s")
    for name, found in results.items():
        accuracy, rows, engine = found["accuracy"], found["latency"], found["engines"]
        assert isinstance(accuracy, dict)
        assert isinstance(rows, list)
        assert isinstance(engine, dict)
        agree = f"{accuracy['agreement']:.2%}"
        right = f"{accuracy['accuracy_fp32']:.2%} to {accuracy['accuracy_int8']:.2%}"
        for row in rows or [None]:
            table.add_row(name, *(_cells(row) if row else ["-"] * 5), agree, right, verdict(name, found))
        sizes.add_row(
            name,
            f"{found['fp32_mb']:.2f}",
            f"{found['int8_mb']:.2f}",
            f"{engine['fp32_mb']:.2f}",
            f"{engine['int8_mb']:.2f}",
            f"{engine['shrinks']:.2f}x",
            f"{engine['fp32_s']} / {engine['int8_s']}",
        )
    console.print(table, sizes)


def _cells(row: dict[str, object]) -> list[str]:
    speed = row["speedup"]
    assert isinstance(speed, dict)
    wall = float(str(row["fp32_wall_p50_ms"])) / float(str(row["int8_wall_p50_ms"]))
    return [
        str(row["batch"]),
        f"{row['fp32_p50_ms']:.2f} / {row['fp32_p95_ms']:.2f}",
        f"{row['int8_p50_ms']:.2f} / {row['int8_p95_ms']:.2f}",
        f"{speed['value']:.2f} ({speed['low']:.2f} to {speed['high']:.2f})",
        f"{wall:.2f}",
    ]


def machine() -> dict[str, object]:
    import onnxruntime

    cpu = next((line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")), "")
    flags = next((line for line in _lines("/proc/cpuinfo") if line.startswith("flags")), "").split()
    wanted = ("avx2", "avx512_vnni", "avx_vnni", "amx_int8")
    return {
        "cpu": cpu,
        "int8_instructions": [f for f in wanted if f in flags],
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "onnxruntime": onnxruntime.__version__,
    }


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantization", description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="*", choices=sorted(ZOO), default=sorted(ZOO))
    parser.add_argument("--batches", nargs="*", type=int, default=[1, 8, 32])
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    console = Console(width=170)
    about = machine()
    results: dict[str, dict[str, object]] = {}
    for name in options.models:
        console.print(f"{name} ...")
        results[name] = measure(ZOO[name](), tuple(options.batches), Effort(bursts=10, runs=15))
        results[name]["reached"] = verdict(name, results[name])
    show(console, results)
    document = {
        "command": "python -m benchmarks.quantization",
        "what": "medians of interleaved runs, one thread; speed-up = FP32 / INT8 median of the thread's CPU time",
        "machine": about,
        "compute_capability": CAPABILITY,
        "wanted_speedup": WANTED,
        "models": results,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(document, indent=1, sort_keys=True) + "\n")
    console.print(f"wrote {options.out}")
    return 0 if not any(str(found["reached"]).startswith("no") for found in results.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
