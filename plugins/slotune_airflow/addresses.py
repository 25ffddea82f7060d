"""Where people find things: Airflow's pages, a run, and slotune's own page. Light: DAG files may import it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

PAGE = "/slotune"
"""Where the plugin's page is below Airflow's address."""


def base_url(told: str | None) -> str:
    """Where Airflow's pages are, without a slash at the end; "" where that is not known."""
    from airflow.sdk.configuration import conf

    return (told or conf.get("api", "base_url", fallback="") or "").rstrip("/")


def run_url(base: str, context: Mapping[str, Any]) -> str:
    """Where the context's run is in Airflow; "" where that is not known."""
    run = context.get("dag_run")
    return f"{base}/dags/{quote(run.dag_id)}/runs/{quote(run.run_id, safe='')}" if base and run is not None else ""
