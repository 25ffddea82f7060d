"""`slotune discover`: finds the serving systems in a Prometheus and writes a services.yaml, in mode observe."""

from __future__ import annotations

import difflib
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import track

from detection.errors import ConfigError, SlotuneError, SourceGarbage, SourceRefused
from detection.model import MetricWindow, Service, Slo, Span
from detection.outside_text import printable
from slotune.connections import parse_connection

if TYPE_CHECKING:
    from detection.sources.prometheus import PrometheusSource
    from slotune.discovery import Found
    from slotune.discovery_file import Entry

HISTORY_POINTS = 2000
NOW_POINTS = 20
_PLACEHOLDER_MS = 86_400_000.0
"""An SLO that censors nothing while the P95 is only looked at."""


def register(app: typer.Typer) -> None:
    """Adds the subcommand."""
    app.command("discover")(discover)


def discover(
    prometheus: Annotated[str, typer.Option("--prometheus", help="Its address, or the name of a connection.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write.")] = Path("services.yaml"),
    history_h: Annotated[float, typer.Option("--history", min=0.01, help="Hours of history for the SLOs.")] = 168.0,
    scrape_s: Annotated[float, typer.Option("--scrape", min=0.1, help="Its scrape interval in seconds.")] = 15.0,
    kubeconfig: Annotated[
        Path | None, typer.Option("--kubeconfig", help="Also look up the workloads behind the pods, read-only.")
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", help="Where the pods are, for services whose series do not say.")
    ] = "default",
    write: Annotated[bool, typer.Option("--write", help="Write into a file that is there.")] = False,
    ask: Annotated[
        bool | None, typer.Option("--ask/--no-ask", help="Ask which services to watch (as a rule: on a terminal).")
    ] = None,
) -> None:
    """Find serving systems by their metrics and write them down with every signal found or missing, in mode observe.

    On a terminal it shows a table and asks which of them to watch and what each promises; elsewhere it takes all.
    A file that is there keeps every line; what is not in it yet is shown as a diff, and appended with --write or a yes.
    Exit 1 where no serving system is found.
    """
    from rich.console import Console

    from slotune import discovery_file as files
    from slotune.discovery import overlapping

    source = _source(prometheus, max(4 * scrape_s, 2.0))
    now_s = time.time()
    asking = sys.stdin.isatty() and sys.stdout.isatty() if ask is None else ask
    found, sentences = _found(source, now_s, scrape_s)
    sentences += overlapping(found)
    entries = []
    quiet, bar = not sys.stderr.isatty(), Console(stderr=True)
    for one in track(found, "reading services", console=bar, transient=True, disable=quiet):
        try:
            entry = _entry(source, one, now_s, scrape_s, history_h)
            entries.append(entry if kubeconfig is None else replace(entry, place=_place(one, kubeconfig, namespace)))
        except (ConfigError, SourceRefused, SourceGarbage) as error:
            sentences.append(f"{one.name} was found and cannot be read: {error}")
    old = out.read_text(encoding="utf-8") if out.exists() else None
    known = files.known_in(old, str(out)) if old is not None else []
    _show(entries, asking=asking)
    for sentence in sentences:
        typer.echo(f"warn {sentence}")
    for gone in files.unseen(known, entries):
        typer.echo(f"warn {gone} is in {out}, and none of the services that were found is it")
    if not entries:
        typer.echo("No serving system was found: docs/presets.md lists the metrics that each is known by.")
        raise typer.Exit(1)
    fresh = [entry for entry in entries if entry.key not in {key for _, key in known}]
    if old is not None and not fresh:
        typer.echo(f"{out}: nothing to add.")
        return
    if asking and not (fresh := _chosen(fresh)):
        typer.echo(f"Nothing was chosen: {out} {'is as it was' if old is not None else 'is not written'}.")
        return
    text = files.extended(old, fresh, known) if old is not None else files.whole(fresh, scrape_s)
    if old is not None and not write:
        typer.echo("".join(difflib.unified_diff(old.splitlines(True), text.splitlines(True), str(out), "proposed")))
        if not (asking and typer.confirm(f"Append this to {out}?", default=True)):
            typer.echo(f"{out} is as it was; --write appends this.")
            return
    try:
        out.write_text(text, encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot be written: {error.strerror}", where=str(out)) from error
    typer.echo(f"{out}: written. Next: slotune check {out}")


def _show(entries: Sequence[Entry], *, asking: bool) -> None:
    if asking and entries:
        from rich.console import Console

        from slotune.commands import _discover_terminal as terminal

        return terminal.show(entries, Console())
    for entry in entries:
        of = len(entry.found) + len(entry.missing)
        typer.echo(f"{entry.name}: {entry.preset}, {len(entry.found)} of {of} signals")
    return None


def _chosen(entries: Sequence[Entry]) -> list[Entry]:
    from rich.console import Console

    from slotune.commands import _discover_terminal as terminal

    try:
        return terminal.choose(entries, Console())
    except EOFError as error:
        raise ConfigError("the questions were not answered: --no-ask takes every service", where="--ask") from error


def _source(given: str, window_s: float) -> PrometheusSource:
    from detection.http_access import Access
    from detection.sources.prometheus import PrometheusSource
    from slotune.compose import environment_connections

    if "://" in given:
        connection = parse_connection("prometheus", given, where="--prometheus")
    else:
        connection = environment_connections().get(given)
    access = Access.of(connection.extra, connection.login, connection.password)
    method = str(connection.extra.get("method") or "POST").upper()
    return PrometheusSource(connection.url, rate_window_s=window_s, access=access, method=method, timeout_s=30.0)


def _found(source: PrometheusSource, now_s: float, scrape_s: float) -> tuple[list[Found], list[str]]:
    """The services, and sentences about what looks like one and cannot be read."""
    from slotune import discovery

    span = Span(now_s - NOW_POINTS * scrape_s, now_s, scrape_s)
    rows = source.series(f'group by (__name__) ({{__name__=~"{_escaped(discovery.pattern())}"}})', span)
    names = sorted({row.labels["__name__"] for row in rows if "__name__" in row.labels})
    found: list[Found] = []
    sentences = []
    keys = ", ".join(dict.fromkeys((*discovery.IDENTITY, *discovery.PLACE, "instance")))
    for sighting in discovery.sightings(names):
        if sighting.renamed:
            sentences.append(
                f"{printable(sighting.metric, 80)} looks like {sighting.preset}'s {sighting.renamed} under another "
                "name, which that preset cannot be told: take the prefix away with a metric_relabel_config"
            )
            continue
        series = [row.labels for row in source.series(f"group by ({keys}) ({sighting.metric})", span)]
        found += discovery.group(sighting, series)
    return _unique(discovery.settled(found)), sentences


def _escaped(pattern: str) -> str:
    return pattern.replace("\\", "\\\\").replace('"', '\\"')


def _unique(found: Sequence[Found]) -> list[Found]:
    """Names that services.yaml takes, each once."""
    import re

    seen: dict[str, int] = {}
    named = []
    for one in found:
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", one.name).strip("-._")[:50] or one.sighting.preset
        if name in seen:
            name = f"{name}-{one.sighting.preset.replace('_', '-')}"[:63]
        seen[name] = 1
        named.append(replace(one, name=name))
    return named


def _entry(source: PrometheusSource, one: Found, now_s: float, scrape_s: float, history_h: float) -> Entry:
    """The service with its signals now and an SLO from its history; by place alone where that shows more."""
    from slotune.discovery import propose_slo
    from slotune.discovery_file import Entry
    from slotune.signal_table import rows

    span = Span(now_s - NOW_POINTS * scrape_s, now_s, scrape_s)
    chosen = _service(one, one.selectors)
    window = _read(source, chosen, span)
    if one.wider is not None and (window is None or "p95_ms" not in window.values):
        wide = _service(one, one.wider)
        other = _read(source, wide, span)
        if other is not None and len(other.values) > (0 if window is None else len(window.values)):
            chosen, window = wide, other
    table = rows(chosen, window, 4 * scrape_s)
    there = set(source.names(chosen, now_s))
    step_s = max(scrape_s, history_h * 3600 / HISTORY_POINTS)
    past = _read(source, chosen, Span(now_s - step_s * round(history_h * 3600 / step_s), now_s, step_s))
    values: Mapping[str, object] = {} if past is None else past.values
    slo = None
    if past is not None and "p95_ms" in values:
        slo = propose_slo(past.values["p95_ms"], past.values.get("error_rate"), past.bounds_ms, step_s)
    return Entry(
        name=one.name,
        preset=one.sighting.preset,
        selectors=dict(chosen.selectors),
        labels=dict(one.sighting.labels),
        found=tuple((row.signal, row.value or "a gap now", _shown(row.metrics, there)) for row in table if row.found),
        missing=tuple((row.signal, row.without) for row in table if not row.found),
        slo=slo,
        warnings=one.warnings,
    )


def _place(one: Found, kubeconfig: Path, namespace: str) -> tuple[str, ...]:
    """What the cluster says of the workload behind a service; one line why not, where it cannot be told."""
    from slotune.connections import EnvironmentConnections
    from slotune.discovery_file import workload_lines
    from tuning.actuators.search import behind

    address = json.dumps({"conn_type": "kubernetes", "extra": {"kube_config_path": str(kubeconfig)}})
    connections = EnvironmentConnections({"SLOTUNE_CONN_CLUSTER": address})
    within = one.selectors.get("namespace", namespace)
    try:
        found = behind(connections, "cluster", within, sorted(instance for _, instance in one.targets))
    except SlotuneError as error:
        return (f"Its workload cannot be looked up: {error}",)
    if found is None:
        return (f"No single workload in the namespace {within} has pods at the addresses of its series.",)
    return workload_lines(one.name, found, "cluster")


def _shown(metrics: Sequence[str], there: set[str]) -> str:
    """Those of a query's metrics that the service has; a query knows several releases' names."""
    return ", ".join([metric for metric in metrics if metric in there] or metrics)


def _service(one: Found, selectors: Mapping[str, str]) -> Service:
    return Service(
        name=one.name,
        serving=one.sighting.preset,
        selectors=dict(selectors),
        labels=dict(one.sighting.labels),
        slo=Slo(p95_ms=_PLACEHOLDER_MS),
        mode="observe",
        levers={},
    )


def _read(source: PrometheusSource, service: Service, span: Span) -> MetricWindow | None:
    from detection.signals import SIGNALS

    return source.read([service], tuple(SIGNALS), span).get(service.name)
