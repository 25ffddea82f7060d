"""What Airflow's plugins loader sees of slotune: the name, so that `airflow plugins` lists it."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class SlotunePlugin(AirflowPlugin):
    name = "slotune"
