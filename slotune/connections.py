"""Where connections come from outside Airflow: environment variables, in Airflow's own two spellings.

SLOTUNE_CONN_<NAME> (or AIRFLOW_CONN_<NAME>) holds an address such as `http://user:password@host:9090` or Airflow's
JSON ({"conn_type": ..., "host": ..., "port": ..., "login": ..., "password": ..., "schema": ..., "extra": {...}}).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from urllib.parse import parse_qsl, unquote, urlsplit, urlunsplit

from detection.errors import ConfigError
from tuning.ports import Connection


class EnvironmentConnections:
    """Connections from a mapping of environment variables."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment

    def get(self, name: str) -> Connection:
        variables = [f"{prefix}_CONN_{name.upper().replace('-', '_')}" for prefix in ("SLOTUNE", "AIRFLOW")]
        for variable in variables:
            text = self._environment.get(variable)
            if text:
                return parse_connection(name, text, where=variable)
        raise ConfigError(
            f"the connection {name!r} is not defined: set {variables[0]} to an address such as http://host:port, "
            "or add it under Admin > Connections in Airflow",
            where=variables[0],
        )


def parse_connection(name: str, text: str, *, where: str) -> Connection:
    """A Connection from an address or Airflow's JSON; the message of an error never repeats the text (secrets)."""
    text = text.strip()
    if text.startswith("{"):
        try:
            data = json.loads(text)
        except ValueError as error:
            raise ConfigError("is not valid JSON", where=where) from error
        extra = data.get("extra") or {}
        if isinstance(extra, str):
            try:
                extra = json.loads(extra)
            except ValueError as error:
                raise ConfigError("its `extra` is not valid JSON", where=where) from error
        return from_fields(
            name,
            conn_type=str(data.get("conn_type") or "http"),
            host=data.get("host"),
            port=data.get("port"),
            login=data.get("login"),
            password=data.get("password"),
            schema=data.get("schema"),
            extra=extra,
        )
    parts = urlsplit(text)
    if not parts.scheme or not (parts.netloc or parts.path):
        raise ConfigError("is neither an address (scheme://host:port) nor JSON", where=where)
    host = parts.netloc.rpartition("@")[2]
    return Connection(
        name=name,
        url=urlunsplit((parts.scheme, host, parts.path, "", "")),
        login=unquote(parts.username) if parts.username else None,
        password=unquote(parts.password) if parts.password else None,
        extra=dict(parse_qsl(parts.query)),
    )


def from_fields(
    name: str,
    *,
    conn_type: str,
    host: str | None,
    port: int | str | None,
    login: str | None,
    password: str | None,
    schema: str | None,
    extra: Mapping[str, object],
) -> Connection:
    """A Connection from the fields of Airflow's connection form; the host may carry its own scheme."""
    host = (host or "").rstrip("/")
    if "://" in host:
        url = host
    else:
        scheme = schema if schema in ("http", "https") else conn_type
        url = f"{scheme}://{host}" if host else ""
    if port and url and urlsplit(url).port is None:
        head = urlsplit(url)
        url = urlunsplit((head.scheme, f"{head.netloc}:{port}", head.path, "", ""))
    return Connection(name=name, url=url, login=login or None, password=password or None, extra=dict(extra))
