"""Connections from Airflow: its database, secrets backends and AIRFLOW_CONN_* variables."""

from __future__ import annotations

import os

from airflow.sdk import BaseHook
from airflow.sdk.exceptions import AirflowNotFoundException

from detection.errors import ConfigError
from slotune.connections import EnvironmentConnections, from_fields
from tuning.ports import Connection


class AirflowConnections:
    """SLOTUNE_CONN_* first (the same variables serve the command line), then Airflow."""

    def __init__(self) -> None:
        self._environment = EnvironmentConnections(
            {k: v for k, v in os.environ.items() if k.startswith("SLOTUNE_CONN_")}
        )

    def get(self, name: str) -> Connection:
        try:
            return self._environment.get(name)
        except ConfigError:
            if f"SLOTUNE_CONN_{name.upper().replace('-', '_')}" in os.environ:
                raise
        try:
            found = BaseHook.get_connection(name)
        except AirflowNotFoundException as error:
            raise ConfigError(
                f"the connection {name!r} is not defined: add it under Admin > Connections in Airflow"
            ) from error
        return from_fields(
            name,
            conn_type=found.conn_type,
            host=found.host,
            port=found.port,
            login=found.login,
            password=found.password,
            schema=found.schema,
            extra=found.extra_dejson,
        )
