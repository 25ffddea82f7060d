"""The forms with which a run is started by hand: only what this installation has, refused before the run starts.

A form is made while the DAG file is parsed, so it cannot follow the service that is chosen in it: the levers and bounds
are those of all services, and what fits the chosen one is checked before anything is planned.
"""

from __future__ import annotations

from typing import Any

from airflow.sdk import Param

from slotune_airflow.wiring import LET_IT_CHOOSE, DagFacts

OF_INCIDENT = "the incident's"
"""What watch_services writes in place of a service: the incident says which."""


def tune_params(facts: DagFacts) -> dict[str, Any]:
    """The parameters of tune_service. A service has to be chosen where there is more than one."""
    only: dict[str, Any] = {"default": facts.services[0]} if len(facts.services) == 1 else {}
    bounds = "; ".join(facts.bounds) or "services.yaml has no such lever"
    low, high = facts.value_range
    return {
        "service": Param(**only, type="string", enum=[*facts.services, OF_INCIDENT], title="Service"),
        "lever": Param(LET_IT_CHOOSE, type="string", enum=[LET_IT_CHOOSE, *facts.levers], title="Lever"),
        "value": Param(
            None,
            type=["null", "integer"],
            minimum=low,
            maximum=high,
            title="Value",
            description=f"Batch size or replicas, with that lever only; empty: let it choose. Bounds: {bounds}",
        ),
        "dry_run": Param(False, type="boolean", title="Dry run", description="Plan and mail, change nothing"),
        "incident_id": Param(None, type=["null", "string"], title="Incident", section="Set by watch_services"),
        "attempt": Param(1, type="integer", minimum=1, title="Attempt", section="Set by watch_services"),
    }
