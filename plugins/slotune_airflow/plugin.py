"""What Airflow sees of slotune as a plugin, from the installed package or from the plugins folder."""

from __future__ import annotations

from airflow.plugins_manager import AirflowPlugin


class SlotunePlugin(AirflowPlugin):
    name = "slotune"
