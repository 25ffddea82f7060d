"""`slotune quantize`: make an INT8 model from an ONNX file and rows of data, judge it, print the table, write it."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from detection.errors import SlotuneError
from slotune.commands._quantize_files import check_folder, write_result
from slotune.commands._stopping import Stop, remembered
from tuning.errors import QuantizationRefused
from tuning.quantization import pipeline
from tuning.quantization.artefacts import Target
from tuning.quantization.calibration import check_range, load_calibration
from tuning.quantization.gates import MAX_ACCURACY_DROP, MIN_SPEEDUP, GateLimits, Judgement
from tuning.quantization.measure import metric_of
from tuning.quantization.onnx_model import LoadedModel, load_model
from tuning.quantization.tensorrt_engine import (
    Engine,
    Profile,
    build_engine,
    capability_of,
    device_capability,
    find_tensorrt,
    limit_of,
)

PASSED, REFUSED, BAD_INPUT, STOPPED = 0, 1, 2, 130
VERDICTS = {True: "[green]pass[/]", False: "[red]refuse[/]", None: "[yellow]open[/]"}


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("quantize")(quantize)


def quantize(
    model: Annotated[Path, typer.Argument(help="The FP32 model, an .onnx file.")],
    calibration: Annotated[Path, typer.Option(help="Rows of the model's inputs: an .npz file or a folder of them.")],
    out: Annotated[Path, typer.Option(help="Folder for the INT8 model, its manifest and its report.")],
    target: Annotated[Literal["ort", "tensorrt"], typer.Option(help="The runtime that will serve it.")] = "ort",
    compute_capability: Annotated[
        str | None, typer.Option(help="GPU generation of the TensorRT engine, e.g. 8.9; needs --target tensorrt.")
    ] = None,
    labels: Annotated[Path | None, typer.Option(help="Right classes of the rows (.npy or .npz).")] = None,
    live: Annotated[
        Path | None, typer.Option(help="Rows of real traffic that judge instead of held-back ones.")
    ] = None,
    metric: Annotated[str | None, typer.Option(help="Your own measure, package.module:function; needs labels.")] = None,
    output: Annotated[
        str | None, typer.Option(help="Output that is compared, for a model with several outputs.")
    ] = None,
    answers: Annotated[
        Literal["classes", "vectors", "values"] | None,
        typer.Option(help="What the output is: class scores, embeddings, or numbers; default: told from its values."),
    ] = None,
    value_range: Annotated[
        tuple[float, float] | None, typer.Option(help="Range that every input value must lie in, e.g. 0 1.")
    ] = None,
    batch: Annotated[list[int] | None, typer.Option(help="Batch size to time; repeat for several (1 and 8).")] = None,
    max_accuracy_drop: Annotated[float, typer.Option(help="Largest loss of accuracy, as a share.")] = MAX_ACCURACY_DROP,
    min_agreement: Annotated[float | None, typer.Option(help="Smallest share of equal answers.")] = None,
    min_speedup: Annotated[float, typer.Option(help="FP32 latency divided by INT8 latency, at least.")] = MIN_SPEEDUP,
    workspace: Annotated[str, typer.Option(help="Memory that TensorRT may use to build, e.g. 1GiB.")] = "1GiB",
) -> None:
    """Make INT8 from an FP32 ONNX model, and prove it: same answers, and at least 10 % faster here.

    Exit codes: 0 every gate passed, 1 a gate refused (the table says which), 2 the input is unusable, 130 stopped.
    """
    console = Console()
    limits = GateLimits(max_accuracy_drop=max_accuracy_drop, min_agreement=min_agreement, min_speedup=min_speedup)
    batches = tuple(batch or (1, 8))
    with remembered() as stop:
        try:
            _check(target, compute_capability, limits, batches, workspace)
            check_folder(out)
            own = None if metric is None else metric_of(metric)
            recipe = pipeline.Recipe(
                target=target, limits=limits, batches=batches, output=output, answers=answers, metric=own
            )
            with _bar(console, stop) as progress:
                progress("reading the model", 0.0)
                loaded = load_model(model)
                data = load_calibration(calibration, loaded, labels=labels)
                if value_range is not None:
                    check_range(data, dict.fromkeys(data.inputs, value_range))
                rows = None if live is None else load_calibration(live, loaded)
                made = pipeline.quantize(loaded, data, recipe, live=rows, progress=progress)
                engine = None
                if target == "tensorrt" and made.judgement.passed:
                    engine = _engine(made, loaded, batches, compute_capability, workspace, progress)
            stop.check()
            written = write_result(out, loaded.name, made, engine)
        except BaseException as error:
            if stop.asked or isinstance(error, KeyboardInterrupt):
                _complain(f"stopped: nothing finished was written to {out}")
                raise typer.Exit(STOPPED) from error
            if not isinstance(error, SlotuneError):
                raise
            _complain(str(error))
            raise typer.Exit(BAD_INPUT) from error
    _print(console, loaded, made, engine, written)
    raise typer.Exit(PASSED if made.judgement.passed else REFUSED)


def _check(
    target: Target, capability: str | None, limits: GateLimits, batches: tuple[int, ...], workspace: str
) -> None:
    """Options that cannot mean anything, found before minutes of work."""
    if capability is not None:
        if target != "tensorrt":
            raise QuantizationRefused("--compute-capability is for --target tensorrt only")
        capability_of(capability)
    limit_of(workspace)
    if target == "tensorrt":
        find_tensorrt()
        if capability is None and device_capability() is None:
            raise QuantizationRefused(
                "there is no GPU here: name the one to build for with --compute-capability, e.g. 8.9"
            )
    if min(batches) < 1:
        raise QuantizationRefused(f"--batch must be 1 or more, got {min(batches)}")
    if not 0 <= limits.max_accuracy_drop <= 1 or not 0 < limits.min_speedup < math.inf:
        raise QuantizationRefused("--max-accuracy-drop is a share from 0 to 1 and --min-speedup more than 0")
    if limits.min_agreement is not None and not 0 <= limits.min_agreement <= 1:
        raise QuantizationRefused("--min-agreement is a share from 0 to 1")


def _engine(
    made: pipeline.Quantized,
    loaded: LoadedModel,
    batches: tuple[int, ...],
    capability: str | None,
    workspace: str,
    progress: pipeline.Progress,
) -> Engine:
    fixed = loaded.fixed_batch
    return build_engine(
        made.artefact.data,
        loaded,
        precision="int8",
        profile=Profile(1, max(batches), max(32, *batches)) if fixed is None else Profile(fixed, fixed, fixed),
        compute_capability=capability,
        calibration_digest=made.artefact.calibration_digest,
        workspace_bytes=limit_of(workspace),
        progress=lambda phase, share: progress(f"building the engine: {phase[:40]}", 0.9 + 0.1 * share),
    )


def _complain(text: str) -> None:
    """The sentence to stderr. Escaped: a path or a shape in brackets is no markup."""
    Console(stderr=True).print(f"[red]slotune:[/] {escape(text)}", highlight=False, soft_wrap=True)


@contextmanager
def _bar(console: Console, stop: Stop) -> Iterator[pipeline.Progress]:
    columns = (TextColumn("[progress.description]{task.description:<44}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def show(stage: str, share: float) -> None:
            stop.check()
            bar.update(task, description=escape(stage), completed=share)

        yield show


def _print(
    console: Console, loaded: LoadedModel, made: pipeline.Quantized, engine: Engine | None, written: list[Path]
) -> None:
    judgement, artefact = made.judgement, made.artefact
    console.print(gate_table(judgement))
    if judgement.latency:
        console.print(latency_table(judgement))
    console.print(
        f"FP32 {len(loaded.data) / 1e6:.1f} MB, INT8 {len(artefact.data) / 1e6:.1f} MB"
        + (f", engine {len(engine.data) / 1e6:.1f} MB for {engine.facts.compute_capability}" if engine else ""),
        highlight=False,
    )
    for note in judgement.notes:
        console.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)
    console.print(_verdict(judgement), highlight=False, soft_wrap=True)
    for path in written:
        console.print(f"wrote {escape(str(path))}", highlight=False, soft_wrap=True)


def _verdict(judgement: Judgement) -> str:
    if not judgement.passed:
        return f"[red]refused[/]: {escape(judgement.refusal)}"
    if judgement.ready:
        return "[green]passed[/]: every gate"
    return "[yellow]passed what can be measured here[/]: prove its speed on the target before it takes traffic"


def gate_table(judgement: Judgement) -> Table:
    """One line per gate."""
    table = Table("gate", "found", "asked", "verdict", title="INT8 against FP32")
    for row in judgement.gates:
        table.add_row(row.gate, row.found, row.asked, VERDICTS[row.passed])
    return table


def latency_table(judgement: Judgement) -> Table:
    """One line per batch size, milliseconds."""
    table = Table("batch", "FP32 median", "FP32 P95", "INT8 median", "INT8 P95", "speed-up (95 % interval)", title="ms")
    for row in judgement.latency:
        table.add_row(
            str(row.batch),
            *(f"{ms:.2f}" for ms in (row.fp32_p50_ms, row.fp32_p95_ms, row.int8_p50_ms, row.int8_p95_ms)),
            f"{row.speedup.value:.2f}x ({row.speedup.low:.2f} to {row.speedup.high:.2f})",
        )
    return table
