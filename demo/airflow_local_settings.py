"""Copied into the demo's AIRFLOW_HOME/config: tasks inherit slotune's imports from their parent process."""

from slotune_airflow.preload import preload

preload()
