"""Whether Airflow knows slotune's DAGs and has them switched on, for the command line on Airflow's machine."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from detection.errors import ConfigError


def paused() -> Mapping[str, bool]:
    """DAG -> whether it is paused, for those that Airflow has seen. Raises ConfigError where it cannot be asked."""
    from airflow.models.dag import DagModel
    from airflow.utils.session import create_session
    from sqlalchemy import select

    try:
        with create_session() as session:
            rows: Any = session.execute(
                select(DagModel.dag_id, DagModel.is_paused).where(
                    DagModel.dag_id.in_(("watch_services", "tune_service", "learn_baselines", "review_week"))
                )
            )
            return {dag_id: bool(is_paused) for dag_id, is_paused in rows}
    except Exception as error:  # whatever the database raises
        raise ConfigError(
            f"Airflow's database cannot be asked about the DAGs ({type(error).__name__}): is it migrated, and up?"
        ) from error
