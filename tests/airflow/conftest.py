"""Airflow for tests: its own home and database, set before the first import of airflow."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HOME = Path(tempfile.mkdtemp(prefix="slotune-airflow-"))
SERVICES = """
prometheus: {rate_window: 15s, step: 5s}
schedule: {watch_every: 7m}
services:
  - name: ranker
    serving: slotune_demo
    selectors: {service: ranker}
    slo: {p95: 150ms, for: 10s}
    mode: act
    levers: {batch_size: {min: 1, max: 32, connection: ranker_control}}
"""
os.environ.update(
    AIRFLOW_HOME=str(HOME),
    AIRFLOW__CORE__LOAD_EXAMPLES="False",
    AIRFLOW__CORE__DAGS_FOLDER=str(ROOT / "dags"),
    AIRFLOW__CORE__PLUGINS_FOLDER=str(ROOT / "plugins"),
    SLOTUNE_CONFIG=str(HOME / "services.yaml"),
    SLOTUNE_HOME=str(HOME / "slotune"),
)
(HOME / "services.yaml").write_text(SERVICES)
sys.path.insert(0, str(ROOT / "plugins"))


@pytest.fixture(scope="session")
def dag_bag():
    from airflow.utils import db

    db.initdb()
    from airflow.dag_processing.dagbag import DagBag

    return DagBag(str(ROOT / "dags"))
