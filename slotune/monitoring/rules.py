"""Recording and alerting rules for Prometheus: the SLOs by burn rate, and the loop itself as a dead man's switch.

Everything is asked of the metrics that slotune serves at /metrics, so the rules are the same for every serving system.
The burn rates and their windows are those of Google's SRE workbook, chapter "Alerting on SLOs" (multi-window,
multi-burn-rate): 14.4 times the budget over an hour spends 2 % of a month's, 6 times over six hours spends 5 %.
"""

from __future__ import annotations

from typing import Any

import yaml

from tuning.settings import Settings

Rule = dict[str, Any]
FAST, SLOW = 14.4, 6.0
WINDOWS = ("5m", "30m", "1h", "6h")


def rules(settings: Settings, *, objective: float = 0.99, open_for: str = "30m") -> str:
    """The rules as YAML. objective: the share of time in which P95 has to be under its SLO, 0..1 exclusive.

    open_for: how long an act-tier incident may be open before somebody is called. Where `notify.base_url` says where
    the page is, every alert has the annotation `link`: about a service to its newest incident, else to health.
    """
    groups: list[dict[str, Any]] = [
        {"name": "slotune-slo", "rules": [*_recorded(), *_burning(1 - objective)]},
        {"name": "slotune-loop", "rules": _loop(settings, open_for)},
    ]
    if settings.notify.base_url:
        for rule in (rule for group in groups for rule in group["rules"] if "alert" in rule):
            rule["annotations"]["link"] = settings.notify.base_url.rstrip("/") + _place(rule)
    return yaml.safe_dump({"groups": groups}, sort_keys=False, allow_unicode=True, width=120)


def _place(rule: Rule) -> str:
    """Where on the page an alert leads to. Names of services need no escape: services.yaml takes plain ones only."""
    about_one = "$labels.service" in rule["annotations"]["summary"]
    return "/services/{{ $labels.service }}/incident" if about_one else "/health"


def _recorded() -> list[Rule]:
    return [
        {"record": f"slotune:slo_broken:share{window}", "expr": f"avg_over_time(slotune_slo_broken[{window}])"}
        for window in WINDOWS
    ]


def _burning(budget: float) -> list[Rule]:
    def burn(factor: float, long: str, short: str) -> str:
        # A service that is broken all the time burns 1/budget; a factor above that could never be reached.
        limit = f"{min(factor * budget, 0.99):.6g}"
        return f"slotune:slo_broken:share{long} > {limit} and slotune:slo_broken:share{short} > {limit}"

    return [
        _alert(
            "SlotuneSloBurnsFast",
            burn(FAST, "1h", "5m"),
            "2m",
            "critical",
            "{{ $labels.service }} was over its SLO {{ $value | humanizePercentage }} of the last hour",
            "At this rate a month's budget is spent in two days. See what slotune did: its last incident says why.",
        ),
        _alert(
            "SlotuneSloBurnsSlowly",
            burn(SLOW, "6h", "30m"),
            "15m",
            "warning",
            "{{ $labels.service }} was over its SLO {{ $value | humanizePercentage }} of the last six hours",
            "At this rate a month's budget is spent in five days.",
        ),
    ]


def _loop(settings: Settings, open_for: str) -> list[Rule]:
    step = f"{max(15, round(settings.schedule.watch_every_s / 2))}s"
    return [
        _alert(
            "SlotuneLoopDead",
            "time() - slotune_sweep_timestamp_seconds > 3 * slotune_sweep_interval_seconds",
            "0s",
            "critical",
            "slotune has not looked for {{ $value | humanizeDuration }}",
            "Nobody watches the services: see the DAG watch_services, the scheduler, and slotune's health page.",
        ),
        _alert(
            "SlotuneGone",
            "absent(slotune_sweep_timestamp_seconds)",
            step,
            "critical",
            "slotune's metrics are gone",
            "Neither the loop nor its page answers: see the API server of Airflow, or slotune serve.",
        ),
        _alert(
            "SlotuneIncidentOpenLong",
            'time() - slotune_incident_opened_timestamp_seconds{tier="act"} > 0',
            open_for,
            "warning",
            "An incident of {{ $labels.service }} is open since {{ $value | humanizeDuration }}",
            "slotune could not cure it, or may not: its report says why.",
        ),
        _alert(
            "SlotuneServiceUnreadable",
            "slotune_unreadable == 1",
            f"{round(3 * settings.schedule.watch_every_s)}s",
            "warning",
            "{{ $labels.service }} cannot be read ({{ $labels.part }})",
            "slotune is blind for this service: see its health page for the reason.",
        ),
        _alert(
            "SlotuneApprovalWaiting",
            "time() - slotune_approval_asked_timestamp_seconds > 0",
            f"{round(settings.safety.approval_timeout_s / 2)}s",
            "warning",
            "A change of {{ $labels.service }} waits for an answer since {{ $value | humanizeDuration }}",
            "Half of the time to answer is over: see Required Actions in Airflow.",
        ),
        _alert(
            "SlotuneLeaseOverdue",
            "time() - slotune_lease_expires_timestamp_seconds > 0",
            f"{round(2 * settings.schedule.watch_every_s)}s",
            "warning",
            "The temporary change of {{ $labels.service }} should have ended {{ $value | humanizeDuration }} ago",
            "It was not handed back: slotune says why in the service's page.",
        ),
        _alert(
            "SlotuneReportsUnsent",
            "slotune_reports_unsent > 0",
            "30m",
            "warning",
            "{{ $value }} reports of slotune could not be sent",
            "People do not hear of what it does: see the channels' settings and the log of watch_services.",
        ),
    ]


def _alert(name: str, expr: str, held: str, severity: str, summary: str, description: str) -> Rule:
    return {
        "alert": name,
        "expr": expr,
        "for": held,
        "labels": {"severity": severity},
        "annotations": {"summary": summary, "description": description},
    }
