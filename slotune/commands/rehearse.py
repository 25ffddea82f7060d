"""`slotune rehearse`: what the whole loop would have done on one's own history, before the switch is thrown."""

from __future__ import annotations

import csv
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from detection.errors import ConfigError

if TYPE_CHECKING:
    from slotune.rehearsal.fleet import Held
    from slotune.rehearsal.kept import Folder
    from slotune.rehearsal.result import Rehearsal
    from tuning.settings import Settings

Tell = Callable[[float], None]
Say = Callable[[str], None]
_LONG_S, _LONG_STEP_S = 2 * 86_400.0, 60.0


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("rehearse")(rehearse)


def rehearse(
    recorded: Annotated[
        Path | None, typer.Option("--recorded", help="A recording NAME.csv, or a folder with one for each service.")
    ] = None,
    last: Annotated[str, typer.Option("--last", help="Without a recording: how much of Prometheus' history.")] = "7d",
    service: Annotated[list[str] | None, typer.Option("--service", help="Only this one; may be repeated.")] = None,
    config: Annotated[Path | None, typer.Option("--config", help="services.yaml (default: SLOTUNE_CONFIG).")] = None,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="Another services.yaml: the same history with both.")
    ] = None,
    step: Annotated[str, typer.Option("--step", help="Resolution of what is read from Prometheus, e.g. 30s.")] = "",
    save: Annotated[
        Path | None, typer.Option("--save", help="Keep what was read from Prometheus in this folder, as recordings.")
    ] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Writes a page with a timeline of every incident.")
    ] = None,
    table: Annotated[Path | None, typer.Option("--csv", help="Writes the incidents as CSV.")] = None,
    jobs: Annotated[
        int, typer.Option("--jobs", min=0, help="Services that are rehearsed at once; 0: one for each core.")
    ] = 0,
    work: Annotated[
        Path | None, typer.Option("--work", help="Where finished services are kept, for a run that is stopped.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Everything as JSON on stdout.")] = False,
) -> None:
    """Replay history through the whole loop: what it would have changed and saved, and how sure that is.

    Nothing is changed anywhere and nobody is told: time, levers and the ledger are replaced, all decisions are the real
    ones. What was recorded is measured; what comes after a change is modelled, and every figure says which it is.
    """
    from slotune import compose
    from slotune.rehearsal.fleet import Rehearsing
    from slotune.rehearsal.words import render

    chosen = [compose.load_settings(config), *([compose.load_settings(settings)] if settings is not None else [])]
    labels = [str(config or "the settings"), str(settings)]
    chosen = [_only(one, tuple(service or ())) for one in chosen]
    with _bar() as (tell, say), _folder(work, say) as folder, _stopped(folder):
        folder.prune(time.time())
        found, done = _histories(recorded, chosen[0], (last, step), folder, (tell, say))
        if save is not None:
            _save(save, found)
        results: list[Rehearsal] = []
        for place, (one, label) in enumerate(zip(chosen, labels, strict=False)):
            share = _part(tell, place, len(chosen))
            results.append(Rehearsing(one, found, label, folder, jobs or _cores(), say).run(share))
        done()
    if html is not None:
        from slotune.rehearsal.page import page

        _write(html, page(results))
    if table is not None:
        _csv(table, results)
    if as_json:
        from slotune.rehearsal.document import document

        typer.echo(
            json.dumps([document(one) for one in results] if len(results) > 1 else document(results[0]), indent=2)
        )
        return
    for result in results:
        typer.echo((f"With {result.label}:\n" if len(results) > 1 else "") + render(result) + "\n")


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _part(tell: Callable[[float], None], place: int, parts: int) -> Callable[[float], None]:
    return lambda done: tell((place + done) / parts)


def _only(settings: Settings, names: tuple[str, ...]) -> Settings:
    known = [service.name for service in settings.services]
    for name in names:
        if name not in known:
            raise ConfigError(f"there is no service {name!r} in services.yaml; it has: {', '.join(known)}")
    if not names:
        return settings
    return settings.model_copy(update={"services": tuple(s for s in settings.services if s.name in names)})


def _histories(
    recorded: Path | None, settings: Settings, much: tuple[str, str], folder: Folder, told: tuple[Tell, Say]
) -> tuple[dict[str, Held], Callable[[], None]]:
    """By service, and what to do when they are not needed any more. much: --last and --step."""
    from slotune.rehearsal.reading import recordings

    if recorded is not None:
        return recordings(recorded, {service.name: service for service in settings.service_values()}), lambda: None
    return _from_prometheus(settings, much, folder, told)


def _from_prometheus(
    settings: Settings, much: tuple[str, str], folder: Folder, told: tuple[Tell, Say]
) -> tuple[dict[str, Held], Callable[[], None]]:
    from slotune import compose
    from slotune.commands.backtest import seconds
    from slotune.rehearsal.reading import Reading

    last, step = much
    length_s = seconds(last, "--last")
    usual_s = settings.prometheus.step_s if length_s <= _LONG_S else max(_LONG_STEP_S, settings.prometheus.step_s)
    step_s = seconds(step, "--step") if step else usual_s
    read = settings.model_copy(
        update={
            "prometheus": settings.prometheus.model_copy(
                update={"rate_window_s": max(settings.prometheus.rate_window_s, step_s), "timeout_s": 60.0}
            )
        }
    )
    tell, say = told
    connections = compose.environment_connections()
    source = compose.metrics_source(read, connections)
    asked = f"{read.model_dump_json()} {length_s} {step_s} {connections.get(read.prometheus.connection).url}"
    reading = Reading(source, settings.service_values(), folder, asked, say)
    found = reading.histories(reading.span(length_s, step_s, time.time()), tell)
    if not found:
        reading.done()
        raise ConfigError(f"Prometheus has no series of any of these services in the last {last}")
    return found, reading.done


def _save(folder: Path, found: Mapping[str, Held]) -> None:
    from slotune.rehearsal.history import save

    for name, held in found.items():
        save(folder, {name: held.load()})


@contextmanager
def _folder(work: Path | None, say: Say) -> Iterator[Folder]:
    """Where finished services are kept; without a place of one's own one that is gone afterwards."""
    from slotune.rehearsal.kept import Folder, usual_folder

    if work is not None:
        yield Folder(work)
        return
    try:
        found = Folder(usual_folder())
    except ConfigError as error:
        with tempfile.TemporaryDirectory(prefix="slotune-rehearse-") as path:
            say(f"Nothing is kept for a run that is stopped: {error}. --work names another folder.")
            yield Folder(Path(path))
        return
    yield found


@contextmanager
def _stopped(folder: Folder) -> Iterator[None]:
    """Ctrl-C ends in a sentence."""
    try:
        yield
    except KeyboardInterrupt:
        typer.echo(
            f"Stopped. What is finished is kept in {folder.path}: the same command goes on from there.", err=True
        )
        raise typer.Exit(130) from None


@contextmanager
def _bar() -> Iterator[tuple[Tell, Say]]:
    """A bar of the share that is done, and a line above it for a sentence."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f} %"))
    console = Console(stderr=True)
    shown = Progress(*columns, TimeRemainingColumn(), console=console, disable=not sys.stderr.isatty())
    with shown:
        task = shown.add_task("rehearsing", total=1.0)
        yield (
            lambda share: shown.update(task, completed=share),
            lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True),
        )


def _write(file: Path, text: str) -> None:
    try:
        file.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(file)) from error
    typer.echo(f"Written: {file}", err=True)


def _csv(file: Path, results: list[Rehearsal]) -> None:
    from slotune.rehearsal.document import COLUMNS, rows

    try:
        with file.open("w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(COLUMNS)
            for one in results:
                writer.writerows(rows(one))
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror or error}", where=str(file)) from error
    typer.echo(f"Written: {file}", err=True)
