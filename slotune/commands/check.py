"""`slotune check FILE`: is services.yaml right, and (--live) does everything it names answer?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from pathlib import Path

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from detection.errors import ConfigError
from detection.model import Lever, Objective
from detection.outside_text import printable
from detection.signals import percentile
from slotune.commands.check_result import Result
from tuning.ports import Connections, PerReplica
from tuning.settings import Settings


def register(app: typer.Typer) -> None:
    @app.command()
    def check(
        file: Path = typer.Argument(..., help="The services.yaml to check."),
        live: bool = typer.Option(False, "--live", help="Also try Prometheus, channels, control endpoints, rights."),
        send: bool = typer.Option(False, "--send-test", help="Also send a test message to every channel."),
    ) -> None:
        """Check a services.yaml: every mistake with its line; exit 0 when there is none, else 2."""
        from tuning import planning
        from tuning.services_checks import remarks
        from tuning.services_yaml import load

        console = Console()
        settings = load(file, thorough=True, known=_registered())
        planning.chosen(settings.planning)  # a file of weights that cannot be used says so
        _show(console, settings)
        for remark in remarks(settings):
            console.print(f"warn {escape(str(file))}: {escape(remark)}", soft_wrap=True)
        _warn_of_links(console, settings)
        console.print(f"{escape(str(file))}: {len(settings.services)} services, no mistakes.", soft_wrap=True)
        results = [*(_live(settings) if live else ()), *(_sent(settings) if send else ())]
        for result in results:
            # texts from outside are in it: escaped for the terminal as well as for rich
            console.print(f"{result.mark} {escape(printable(result.text, 2000))}", soft_wrap=True)
        if not all(result.ok for result in results):
            raise typer.Exit(1)


def _warn_of_links(console: Console, settings: Settings) -> None:
    """Messages link to an incident's page only where somebody says where the pages are."""
    known = settings.notify.base_url or settings.mail.airflow_url or os.environ.get("AIRFLOW__API__BASE_URL")
    if not known and len(settings.channels()) > 1:
        console.print(
            "warn messages will have no links to their incidents: set notify.base_url here to the address of the page, "
            "or base_url in Airflow's [api] section to the address of Airflow",
            soft_wrap=True,
        )


def _registered() -> dict[str, Sequence[str]]:
    """The names that only the registries know, by the setting that names one of them."""
    from tuning import planning, verification

    return {
        "planning.beside": ["", *planning.LEARNED],
        "planning.planner": planning.ACTING,
        "verification.method": sorted(verification.REGISTRY),
    }


def _bounds(lever: Lever) -> str:
    """The lever with what bounds it."""
    if lever.name == "restart":
        return f"restart (at most {lever.maximum:g} a day, {lever.minimum:g} others ready)"
    if lever.name == "admission":
        return f"admission (not below {lever.minimum:g})"
    if lever.name == "breaker":
        routes = lever.options.get("routes")
        return f"breaker ({len(routes) if isinstance(routes, list) else 0} routes)"
    return f"{lever.name} {lever.minimum:g}..{lever.maximum:g}"


def _show(console: Console, settings: Settings) -> None:
    from slotune.compose import environment_connections
    from tuning.model import ONE_WAY
    from tuning.policies.timing import worst_case_rollback_s

    connections = environment_connections()
    table = Table(title="What slotune may do")
    for column in ("service", "mode", "SLO P95", "levers", "worst-case roll-back"):
        table.add_column(column)
    for service in settings.service_values():
        worst = [
            worst_case_rollback_s(
                settings.verification,
                settings.safety,
                lever,
                watch_every_s=settings.schedule.watch_every_s,
                one_replica_first=_may_begin_on_one(lever, connections),
            )
            for lever in service.levers.values()
            if lever.name not in ONE_WAY
        ]
        table.add_row(
            escape(service.name),
            service.mode,
            ", ".join(_promise(one) for one in service.slo.objectives),
            ", ".join(_bounds(lever) for lever in service.levers.values()) or "-",
            f"{max(worst) / 60:.1f} min" if worst else "-",
        )
    console.print(table)
    drain_min = settings.verification.drain_max_s / 60
    console.print(
        "Worst-case roll-back: how long a harmful change can stay on any replica while Airflow runs. A queue from "
        f"before the change that is still draining adds up to {drain_min:g} min to each wait for it to settle.",
        soft_wrap=True,
    )


def _may_begin_on_one(lever: Lever, connections: Connections) -> bool:
    """Whether a change of this lever may begin on one replica; True also where nobody can tell how many there are."""
    from tuning import actuators

    actuator = actuators.get(lever.actuator)(connections, time.time, time.sleep)
    if not isinstance(actuator, PerReplica) or not lever.options.get("canary", True):
        return False
    if lever.options.get("endpoints"):
        return True
    try:
        return connections.get(str(lever.options.get("connection"))).url.startswith("pods://")
    except ConfigError:
        return True


def _live(settings: Settings) -> Sequence[Result]:
    from slotune.commands.live_check import live_check
    from slotune.compose import environment_connections

    return live_check(settings, environment_connections())


def _sent(settings: Settings) -> Iterable[Result]:
    from slotune.commands.live_check import send_test
    from slotune.compose import environment_connections

    return send_test(settings, environment_connections(), time.time())


def _promise(one: Objective) -> str:
    """"100 ms" of the latency that every service may promise, "TTFT P95 800 ms" of the others."""
    name = "" if one.signal == "p95_ms" else f"{percentile(one.signal)} "
    return f"{name}{one.limit_ms:g} ms"
