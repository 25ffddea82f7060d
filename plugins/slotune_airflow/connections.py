"""Connections from Airflow: its database, secrets backends and AIRFLOW_CONN_* variables."""

from __future__ import annotations

import os
from typing import Any

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from detection.errors import ConfigError
from slotune.connections import EnvironmentConnections, from_fields
from tuning.ports import Connection


class AirflowConnections:
    """SLOTUNE_CONN_* first (the same variables serve the command line), then Airflow."""

    def __init__(self) -> None:
        own = {k: v for k, v in os.environ.items() if k.startswith("SLOTUNE_CONN_")}
        self._environment = EnvironmentConnections(own, self._of_airflow)

    def get(self, name: str) -> Connection:
        return self._environment.get(name)

    @staticmethod
    def _of_airflow(name: str) -> Connection | None:
        try:
            return _converted(name, BaseHook.get_connection(name))
        except AirflowNotFoundException:
            return None


def stored_connection(name: str) -> Connection | None:
    """What the command line sees, outside of any task: the connection in Airflow's database or secrets backends."""
    from airflow.exceptions import AirflowNotFoundException as NotFound
    from airflow.models.connection import Connection as Stored

    try:
        found = Stored.get_connection_from_secrets(name)
    except (AirflowNotFoundException, NotFound):
        return None
    except Exception as error:  # whatever a database or a secrets backend raises
        raise ConfigError(
            f"the connection {name!r} cannot be looked up in this machine's Airflow ({type(error).__name__}); "
            f"set SLOTUNE_CONN_{name.upper().replace('-', '_')} to go without"
        ) from error
    return _converted(name, found)


def _converted(name: str, found: Any) -> Connection:
    return from_fields(
        name,
        conn_type=found.conn_type or "http",
        host=found.host,
        port=found.port,
        login=found.login,
        password=found.password,
        schema=found.schema,
        extra=found.extra_dejson,
    )
