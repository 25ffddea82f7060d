"""Connections: one parser for every spelling of an address, wherever it was defined and whatever it leads to.

SLOTUNE_CONN_<NAME> (or AIRFLOW_CONN_<NAME>) holds an address such as `http://user:password@host:9090/prefix` or
Airflow's JSON ({"conn_type": ..., "host": ..., "port": ..., "login": ..., "password": ..., "schema": ..., "extra":
{...}}); Airflow's own connections come in the same fields. All of them end in `from_fields`, so that one address means
one thing on the command line and in a task. User, password and query never stay in `Connection.url`.
"""

from __future__ import annotations

import difflib
import importlib
import json
import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from detection.errors import ConfigError
from detection.http_access import ACCESS_EXTRAS
from tuning.ports import Connection

_log = logging.getLogger(__name__)
_APPRISE = "apprise+"

SCHEMES = ("http", "https", "smtp", "smtps", "pods", "kubernetes", "file")
_SPELLINGS = {
    "ca": ("ca_file", "ca_cert", "ca_bundle", "cafile", "ssl_ca", "ssl_ca_cert"),
    "cert": ("client_cert", "cert_file", "certfile", "ssl_cert"),
    "key": ("client_key", "key_file", "keyfile", "ssl_key"),
    "token": ("bearer_token", "access_token", "api_token"),
    "verify": ("verify_ssl", "ssl_verify", "tls_verify"),
}
"""Other common words for the extras that all connections have."""

KNOWN_EXTRAS = tuple(
    sorted(
        {
            *ACCESS_EXTRAS,
            *(word for words in _SPELLINGS.values() for word in words),
            # of one kind of connection: Prometheus, Triton, a workload's pods, SMTP, the Kubernetes API
            *("method", "grpc", "grpc_ssl", "hosts", "cluster", "kind", "port"),
            *("disable_ssl", "disable_tls", "timeout", "from_email", "auth_type", "retry_limit", "ssl_context"),
            *("in_cluster", "kube_config", "kube_config_path", "cluster_context", "namespace"),
            *("disable_verify_ssl", "disable_tcp_keepalive", "xcom_sidecar_container_image"),
            *("config",),  # of Airflow's Apprise provider
            *("tracking_uri", "experiment", "registry_uri"),
            # what Airflow's HTTP hook reads
            *("allow_redirects", "proxies", "stream", "check_response", "max_redirects", "trust_env"),
        }
    )
)


class EnvironmentConnections:
    """Connections from a mapping of environment variables; `beyond` is asked for what they do not define."""

    def __init__(
        self, environment: Mapping[str, str], beyond: Callable[[str], Connection | None] | None = None
    ) -> None:
        self._environment = environment
        self._beyond = beyond

    def get(self, name: str) -> Connection:
        variables = [f"{prefix}_CONN_{name.upper().replace('-', '_')}" for prefix in ("SLOTUNE", "AIRFLOW")]
        for variable in variables:
            text = self._environment.get(variable)
            if text:
                return parse_connection(name, text, where=variable)
        found = self._beyond(name) if self._beyond is not None else None
        if found is not None:
            return found
        raise ConfigError(
            f"the connection {name!r} is not defined: set {variables[0]} to an address such as http://host:port, "
            "or add it under Admin > Connections in Airflow",
            where=variables[0],
        )


def airflow_connection(name: str) -> Connection | None:
    """A connection of the Airflow on this machine (its database and secrets backends), None where there is none.

    Importing Airflow takes seconds and writes a configuration where none is: it is done only where one is.
    """
    stored = _of_airflow_here("connections")
    found: Connection | None = stored.stored_connection(name) if stored is not None else None
    return found


def airflow_dags() -> Mapping[str, bool] | None:
    """DAG -> whether it is paused, in the Airflow on this machine; None where there is none. Raises ConfigError."""
    standing = _of_airflow_here("standing")
    found: Mapping[str, bool] | None = standing.paused() if standing is not None else None
    return found


def _of_airflow_here(module: str) -> Any:
    """A module of slotune_airflow where this machine has an Airflow, else None."""
    home = Path(os.environ.get("AIRFLOW_HOME") or "~/airflow").expanduser()
    made = any((home / name).exists() for name in ("airflow.cfg", "airflow.db"))
    if not (made or os.environ.get("AIRFLOW__DATABASE__SQL_ALCHEMY_CONN")):
        return None
    try:
        return importlib.import_module(f"slotune_airflow.{module}")
    except ImportError:
        return None


def parse_connection(name: str, text: str, *, where: str) -> Connection:
    """A Connection from an address or Airflow's JSON; the message of an error never repeats the text (secrets)."""
    if text.strip().startswith(_APPRISE):
        # What follows is written in another tool's grammar, and all of it is secret.
        return Connection(name=name, url="", password=text.strip().removeprefix(_APPRISE))
    try:
        return _of_json(name, text.strip()) if text.strip().startswith("{") else _of_address(name, text.strip())
    except ConfigError as error:
        raise ConfigError(str(error), where=where) from None


def _of_json(name: str, text: str) -> Connection:
    data = _object(text, "is not valid JSON")
    return from_fields(
        name,
        conn_type=_text(data, "conn_type") or "http",
        host=_text(data, "host"),
        port=data.get("port"),
        login=_text(data, "login"),
        password=_text(data, "password"),
        schema=_text(data, "schema"),
        extra=_extra(data.get("extra")),
    )


def _of_address(name: str, text: str) -> Connection:
    parts = _split(text)
    if not parts["scheme"] or not (parts["host"] or parts["schema"]):
        raise ConfigError("is neither an address (scheme://host:port) nor JSON")
    return from_fields(
        name,
        conn_type=parts["scheme"],
        host=parts["host"],
        port=parts["port"],
        login=parts["login"],
        password=parts["password"],
        schema=parts["schema"],
        extra=parts["extra"],
    )


def from_fields(
    name: str,
    *,
    conn_type: str,
    host: str | None,
    port: object,
    login: str | None,
    password: str | None,
    schema: str | None,
    extra: Mapping[str, object],
) -> Connection:
    """A Connection from the fields of Airflow's connection form.

    The host may be a whole address of its own: what it says of scheme, port, path, user and query counts where the
    fields say nothing. The schema is `http` or `https`, or the path below the host, as Airflow takes an address apart.
    """
    place = (host or "").strip()
    if place.count(":") > 1 and not set(place) & set("/@[]"):
        place = f"[{place}]"  # an address of IPv6, as Airflow keeps it
    given: dict[str, Any] = _split(place, scheme_needed=False)
    extras = _spelt({**given["extra"], **extra}, conn_type)
    word = (schema or "").strip().strip("/")
    scheme = given["scheme"] or (word if word in ("http", "https") else _scheme(conn_type))
    paths = [given["schema"], "" if word in ("http", "https") else word]
    number = given["port"] if given["port"] is not None else _port(port)
    url = ""
    if given["host"]:
        at = f"[{given['host']}]" if ":" in given["host"] else given["host"]
        path = "/".join(quote(unquote(part), safe="/:@!$&'()*+,;=~-._") for part in paths if part)
        url = f"{scheme}://{at}{f':{number}' if number else ''}{f'/{path}' if path else ''}"
    elif given["schema"] and scheme == "file":
        url = f"file:///{given['schema']}"
    unknown = unknown_extras(extras)
    if unknown:
        _log.warning("the connection %r has extras that nothing reads: %s", name, "; ".join(unknown))
    return Connection(
        name=name,
        url=url,
        login=login or given["login"] or None,
        password=password or given["password"] or None,
        extra=extras,
    )


def unknown_extras(extra: Mapping[str, object]) -> list[str]:
    """The extras that nothing reads, each with the nearest known one."""
    found = []
    for key in sorted(map(str, extra)):
        if key not in KNOWN_EXTRAS:
            near = difflib.get_close_matches(key, KNOWN_EXTRAS, n=1, cutoff=0.6)
            found.append(f"{key[:40]!r}" + (f" (did you mean {near[0]!r}?)" if near else ""))
    return found


def _spelt(extra: Mapping[str, object], conn_type: str) -> dict[str, object]:
    """The extras under slotune's own names beside the given ones; what Airflow's HTTP hook sends is in `headers`."""
    found: dict[str, object] = {}
    headers: dict[str, object] = {}
    for key, value in extra.items():
        word = str(key).removeprefix(f"extra__{conn_type}__")
        # Airflow's HTTP hook sends every extra that it does not know as a header; names of headers have a dash
        if conn_type in ("http", "https") and ("-" in word or word.lower() == "authorization"):
            headers[word] = value
        elif value not in (None, ""):
            found[word] = value
    for name, others in _SPELLINGS.items():
        spelt = next((found[word] for word in (name, *others) if word in found), None)
        if spelt is not None:
            found.setdefault(name, spelt)
    if "ca" in found:
        found.setdefault("ca_file", found["ca"])  # the Kubernetes client's word
    if str(found.get("disable_verify_ssl", "")).lower() in ("true", "1"):
        found.setdefault("verify", False)
    named = found.get("headers")
    if isinstance(named, str):
        named = found["headers"] = _object(named, "its extra `headers` is not valid JSON")
    if headers and isinstance(named, Mapping | None):
        found["headers"] = {**headers, **(named or {})}
    return found


def _split(text: str, *, scheme_needed: bool = True) -> dict[str, Any]:
    """An address in Airflow's fields: scheme, host, port, login, password, schema (the path) and extra (the query)."""
    if not scheme_needed and "://" not in text:
        text = f"//{text}"
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        # its message repeats what it could not read, which may be a piece of a password
        raise ConfigError("its address cannot be read: write scheme://host:port") from None
    if parts.fragment or "@" in parts.path + parts.query:
        raise ConfigError(
            "its address cannot be read: in a user, password or token write @ as %40, # as %23, / as %2F and ? as %3F"
        )
    query = dict(parse_qsl(parts.query))
    whole = query.pop("__extra__", None)
    extra: dict[str, object] = {**query, **(_object(whole, "its `__extra__` is not valid JSON") if whole else {})}
    return {
        "scheme": parts.scheme,
        "host": unquote(parts.hostname or ""),
        "port": port,
        "login": unquote(parts.username) if parts.username else None,
        "password": unquote(parts.password) if parts.password else None,
        "schema": parts.path.strip("/"),
        "extra": extra,
    }


def _scheme(conn_type: str) -> str:
    word = conn_type.strip().lower().replace("_", "-")
    if word == "email":
        return "smtp"
    if word == "kubernetes":
        return "https"
    return word if word in SCHEMES else "http"


def _port(value: object) -> int | None:
    if value in (None, ""):
        return None
    try:
        number = int(str(value))
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise ConfigError("its port must be a number from 1 to 65535")
    return number


def _text(data: Mapping[str, object], field: str) -> str | None:
    value = data.get(field)
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return str(value)
    raise ConfigError(f"its `{field}` must be a text")


def _extra(value: object) -> Mapping[str, object]:
    if value in (None, ""):
        return {}
    if isinstance(value, str):
        return _object(value, "its `extra` is not valid JSON")
    if isinstance(value, Mapping):
        return {str(key): inner for key, inner in value.items()}
    raise ConfigError("its `extra` must be a mapping")


def _object(text: str, wrong: str) -> dict[str, object]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        raise ConfigError(wrong) from None
    if not isinstance(data, dict):
        raise ConfigError(wrong)
    return data
