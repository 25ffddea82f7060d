"""The files of `slotune quantize` in its folder: all of one run or nothing that looks finished."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from tuning.errors import QuantizationRefused
from tuning.quantization.artefacts import SUFFIX
from tuning.quantization.pipeline import Quantized
from tuning.quantization.tensorrt_engine import ENGINE_FACTS, ENGINE_PLAN, Engine, engine_files

REPORT = "report.json"
ASIDE = ".writing"


def check_folder(out: Path) -> None:
    """Before minutes of work: QuantizationRefused when files cannot be made there. Makes nothing."""
    nearest = next((p for p in (out, *out.absolute().parents) if p.exists()), Path("/"))
    if not nearest.is_dir():
        raise QuantizationRefused(f"{out} cannot be written: {nearest} is no folder")
    if not os.access(nearest, os.W_OK | os.X_OK):
        raise QuantizationRefused(f"{out} cannot be written: no permission in {nearest}")


def write_result(out: Path, name: str, made: Quantized, engine: Engine | None) -> list[Path]:
    """Write report.json, and the model (with its engine) when every gate passed; the paths, the model first.

    Everything is written aside and flushed first. Then what an earlier run left there goes, its report first, and
    report.json comes last: a folder without one is unfinished, and no report stands beside another run's model.
    QuantizationRefused: the disk said no; the folder is as it was, or without a report.
    """
    model = f"{name}.{SUFFIX[made.artefact.target]}.onnx"
    files: dict[str, bytes] = {}
    if made.judgement.passed:
        files = {model: made.artefact.data, **({} if engine is None else engine_files(engine))}
    evidence = {**made.evidence(), "layers": list(made.artefact.layers)}
    files[REPORT] = (json.dumps(evidence, indent=2, sort_keys=True) + "\n").encode()
    aside = out / ASIDE
    try:
        out.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(aside, ignore_errors=True)
        try:
            _write_aside(aside, files)
            for earlier in (REPORT, model, ENGINE_PLAN, ENGINE_FACTS):
                (out / earlier).unlink(missing_ok=True)
            for file in files:
                (aside / file).rename(out / file)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        raise QuantizationRefused(f"{out} cannot be written: {error.strerror}") from error
    return [out / file for file in files]


def _write_aside(aside: Path, files: Mapping[str, bytes]) -> None:
    aside.mkdir()
    for file, data in files.items():
        with (aside / file).open("wb") as handle:
            handle.write(data)
            handle.flush()
            os.fsync(handle.fileno())
