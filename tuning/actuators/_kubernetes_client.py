"""Calls to one cluster through the official client: plain dictionaries in and out, slotune's errors only.

Connection: url is the API server's address, password (or extra token) a bearer token, extra ca_file (or ca) its
certificate, and what else every connection has for TLS (detection.http_access).
Without an address: extra in_cluster (or a pod's own service account), else extra kube_config_path and cluster_context
as in Airflow's Kubernetes connection, else the usual kubeconfig.
"""

from __future__ import annotations

import json
import os
import time
from dataclasses import replace
from typing import Any
from urllib.parse import urlencode
from urllib.request import getproxies

from kubernetes import client
from kubernetes import config as kube_config
from kubernetes.config.config_exception import ConfigException

from detection.http_access import Access, Address, Tls, address
from detection.http_border import Answer, HttpFailure, Limits, exchange
from tuning.actuators import _kubernetes_shape as shape
from tuning.actuators._http import Unanswered
from tuning.actuators._kubernetes_errors import Missing, Ref, answered, unanswered
from tuning.actuators._kubernetes_shape import Object
from tuning.errors import ConfigError, ControlRefused, SlotuneError
from tuning.ports import Connection, Connections

FIELD_MANAGER = "slotune"
MERGE_PATCH = "application/merge-patch+json"
JSON_PATCH = "application/json-patch+json"
KNOWN_GROUPS = ("", "apps", "autoscaling", "keda.sh")
"""Whose spec and status are known; a custom resource is free in everything but its metadata."""
LIMIT_BYTES = 32 * 1024 * 1024
"""The largest answer that is read: a list of 3,000 pods has about 30 MiB."""
CONNECT_TRIES = 3
"""A connection that is refused is tried so often in all, within the deadline: an API server restarts in a moment."""


class Cluster:
    """One cluster. A write is sent once (never repeated by the transport); an expired token is reloaded once."""

    def __init__(self, connections: Connections, name: str, *, timeout_s: float = 10.0) -> None:
        self._connections = connections
        self._name = name
        self._timeout_s = timeout_s
        self._client: Any = None

    def get(self, ref: Ref) -> Object:
        """One object, its parts checked. Raises ControlUnreachable, ControlRefused (Missing: 404)."""
        return self._object(self._call("GET", "get", ref), ref)

    def items(self, ref: Ref, selector: str = "") -> list[Object]:
        """The objects of a collection, by label selector. Raises ControlUnreachable, ControlRefused."""
        query = [("labelSelector", selector)] if selector else []
        data = self._call("GET", "list", ref, query=query)
        try:
            return shape.many(shape.decode(data), known=_known(ref))
        except shape.Malformed as error:
            raise ControlRefused(f"{ref}: the answer {error}; is this the address of an API server?") from error

    def patch(self, ref: Ref, body: Object | list[Any]) -> Object:
        """A merge patch (or a JSON patch, for a list), with field manager and strict validation.

        Raises ControlUnreachable (nothing was sent), Unanswered (it may have landed), Conflict, NotOwner,
        ControlRefused.
        """
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        kind = JSON_PATCH if isinstance(body, list) else MERGE_PATCH
        answer = self._call("PATCH", "patch", ref, query=query, body=body, content_type=kind)
        return self._object(answer, ref, writing=True)

    def create(self, ref: Ref, body: Object) -> Object:
        """One object into the collection `ref`. Errors as for `patch`; Conflict: it is there already."""
        query = [("fieldManager", FIELD_MANAGER), ("fieldValidation", "Strict")]
        return self._object(self._call("POST", "create", ref, query=query, body=body), ref, writing=True)

    def evict(self, ref: Ref, body: Object) -> None:
        """Ask for the eviction of a pod; a granted one answers with a Status. Errors as for `patch`; Disallowed: a
        PodDisruptionBudget does not allow it now."""
        self._call("POST", "create", ref, body=body)

    def delete(self, ref: Ref) -> None:
        """One object; one that is gone already is no error. Errors as for `patch`."""
        try:
            self._call("DELETE", "delete", ref)
        except Missing:
            return

    def log(self, ref: Ref, *, lines: int = 40) -> str:
        """The last lines of a pod's log. Raises ControlUnreachable, ControlRefused."""
        query = [("tailLines", str(lines))]
        return self._call("GET", "get", replace(ref, sub="log"), query=query).decode("utf-8", "replace")

    def may(self, verb: str, ref: Ref) -> bool:
        """Whether these credentials have one right (SelfSubjectAccessReview; changes nothing)."""
        attributes = {
            "namespace": ref.namespace,
            "verb": verb,
            "group": ref.group,
            "resource": ref.plural,
            "subresource": ref.sub,
            "name": ref.name,
        }
        body = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {key: value for key, value in attributes.items() if value}},
        }
        path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
        asked = Ref("authorization.k8s.io", "v1", "selfsubjectaccessreviews", ref.namespace)
        data = self._call("POST", "create", asked, body=body, path=path, writing=False)
        return bool((self._object(data, asked).get("status") or {}).get("allowed"))

    @staticmethod
    def _object(data: bytes, ref: Ref, *, writing: bool = False) -> Object:
        try:
            return shape.one(shape.decode(data), known=_known(ref))
        except shape.Malformed as error:
            said = f"{ref}: the answer {error}; is this the address of an API server?"
            raise (Unanswered(said) if writing else ControlRefused(said)) from error

    def _call(
        self,
        method: str,
        verb: str,
        ref: Ref,
        *,
        query: list[tuple[str, str]] | None = None,
        body: object = None,
        content_type: str = "application/json",
        path: str = "",
        writing: bool | None = None,
    ) -> bytes:
        writing = method != "GET" if writing is None else writing
        target = (path or ref.path) + (f"?{urlencode(query)}" if query else "")
        for attempt in (1, 2):
            answer = self._send(method, target, verb, ref, body, content_type, writing=writing)
            if answer.status == 401 and attempt == 1:
                self._client = None  # a projected token may have been renewed on disk, or in the connection
                continue
            if not 200 <= answer.status <= 299:
                raise answered(answer, verb, ref, writing=writing)
            return answer.body
        raise AssertionError("unreachable")

    def _send(
        self, method: str, target: str, verb: str, ref: Ref, body: object, content_type: str, *, writing: bool
    ) -> Answer:
        if self._client is None:
            self._client = client.ApiClient(configuration(self._connections.get(self._name)))
        headers = {"Accept": "*/*" if ref.sub == "log" else "application/json", "User-Agent": FIELD_MANAGER}
        if body is not None:
            headers["Content-Type"] = content_type
        data = None if body is None else json.dumps(body).encode()
        try:
            self._client.update_params_for_auth(headers, [], ["BearerToken"])
            at, access = place_of(self._client.configuration)
            return self._exchange(method, at, target, access, headers, data)
        except HttpFailure as failure:
            if failure.kind == "address":
                raise self._unusable(failure) from failure
            raise unanswered(
                failure, verb, ref, writing=writing, timeout_s=self._timeout_s, limit_bytes=LIMIT_BYTES
            ) from failure
        except (ConfigError, ConfigException, OSError, ValueError) as error:
            # a kubeconfig's helper that fails, a token or an address with characters that no request can carry
            raise self._unusable(error) from error

    def _exchange(
        self, method: str, at: Address, target: str, access: Access, headers: dict[str, str], data: bytes | None
    ) -> Answer:
        """One request, whose connection may be refused a few times before it is sent. Raises HttpFailure."""
        until_s = time.monotonic() + self._timeout_s
        for attempt in range(1, CONNECT_TRIES + 1):
            limits = Limits(max(until_s - time.monotonic(), 0.001), LIMIT_BYTES)
            try:
                return exchange(method, at, target, access=access, headers=headers, body=data, limits=limits)
            except HttpFailure as failure:
                pause_s = 0.1 * attempt
                last = attempt == CONNECT_TRIES or time.monotonic() + pause_s >= until_s
                if failure.sent or failure.kind != "refused" or last:
                    raise
            time.sleep(pause_s)
        raise AssertionError("unreachable")

    def _unusable(self, error: Exception) -> SlotuneError:
        return ConfigError(
            f"the connection {self._name} cannot be used ({type(error).__name__}): look at its address and its token"
        )


class Clusters:
    """One client for each connection and limit: its sockets and its token serve all calls of a lever."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._known: dict[tuple[str, float], Cluster] = {}

    def of(self, name: str, timeout_s: float) -> Cluster:
        return self._known.setdefault((name, timeout_s), Cluster(self._connections, name, timeout_s=timeout_s))


def _known(ref: Ref) -> bool:
    return ref.group in KNOWN_GROUPS or ref.sub == "scale"


def configuration(connection: Connection) -> Any:
    """The client's configuration for a connection; ConfigError says what is missing."""
    made = client.Configuration()
    extra = connection.extra
    url = connection.url if connection.url.startswith(("http://", "https://")) else ""
    path = extra.get("kube_config_path") or extra.get("kubeconfig")
    try:
        if url:
            made.host = url.rstrip("/")
            tls = Access.of(extra).tls
            made.verify_ssl, made.ssl_ca_cert, made.cert_file, made.key_file = tls.verify, tls.ca, tls.cert, tls.key
            token = connection.password or extra.get("token")
            if token:
                made.api_key = {"authorization": f"Bearer {token}", "BearerToken": f"Bearer {token}"}
            if extra.get("ca_file"):
                made.ssl_ca_cert = str(extra["ca_file"])
        elif not path and (_true(extra.get("in_cluster")) or os.environ.get("KUBERNETES_SERVICE_HOST")):
            kube_config.load_incluster_config(client_configuration=made)
        else:
            kube_config.load_kube_config(
                config_file=str(path) if path else None,
                context=str(extra["cluster_context"]) if extra.get("cluster_context") else None,
                client_configuration=made,
            )
    except (ConfigException, OSError) as error:
        raise ConfigError(
            f"the connection {connection.name} names no cluster that can be used ({type(error).__name__}); "
            "give it an address with a token, a kube_config_path, or in_cluster"
        ) from error
    return made


def place_of(made: Any) -> tuple[Address, Access]:
    """Where the configuration of the official client leads, and how to get in. ConfigError where it is no address."""
    tls = Tls(bool(made.verify_ssl), made.ssl_ca_cert, made.cert_file, made.key_file, made.tls_server_name)
    # The client takes the environment's proxy over; only one that its kubeconfig names is its own.
    own = made.proxy if made.proxy not in getproxies().values() else None
    return address(made.host), Access(tls=tls, proxy=own or None)


def _true(value: object) -> bool:
    return value is True or str(value).lower() in ("true", "1", "yes")
