"""What a Kubernetes API server's answers mean for a change, as sentences that name the object and the way out."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from kubernetes.client.exceptions import ApiException
from urllib3.exceptions import (
    ConnectTimeoutError,
    HTTPError,
    MaxRetryError,
    NameResolutionError,
    NewConnectionError,
    SSLError,
)

from tuning.actuators._http import Unanswered
from tuning.actuators._options import bounded
from tuning.errors import Conflict, ControlRefused, ControlUnreachable, NotOwner, SlotuneError


class Missing(ControlRefused):
    """There is no such object (404)."""


@dataclass(frozen=True)
class Ref:
    """One object (or with name "" a collection) of a namespace. sub: a subresource, "scale" or ""."""

    group: str
    version: str
    plural: str
    namespace: str
    name: str = ""
    sub: str = ""

    @property
    def path(self) -> str:
        base = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        path = f"{base}/namespaces/{self.namespace}/{self.plural}"
        return path + (f"/{self.name}" if self.name else "") + (f"/{self.sub}" if self.sub else "")

    @property
    def resource(self) -> str:
        return f"{self.plural}/{self.sub}" if self.sub else self.plural

    def __str__(self) -> str:
        return f"{self.resource} {self.namespace}/{self.name}" if self.name else f"{self.resource} of {self.namespace}"


def translate(error: Exception, verb: str, ref: Ref, *, writing: bool) -> SlotuneError:
    """The error to raise instead of a client's error. Unanswered: a write that may have landed."""
    if isinstance(error, ApiException):
        return _answered(error, verb, ref, writing=writing)
    return _unanswered(error, verb, ref, writing=writing)


def role_snippet(verb: str, ref: Ref) -> str:
    """The rule of a Role that grants one right."""
    names = f', resourceNames: ["{ref.name}"]' if ref.name else ""
    return f'{{apiGroups: ["{ref.group}"], resources: ["{ref.resource}"]{names}, verbs: ["{verb}"]}}'


def _answered(error: ApiException, verb: str, ref: Ref, *, writing: bool) -> SlotuneError:
    status, body = int(error.status or 0), _body(error)
    words = bounded(str(body.get("message") or error.reason or "no words"))
    if status == 403:
        return _forbidden(words, body, verb, ref)
    if status == 404:
        return Missing(f"{ref} does not exist ({words}); check namespace and name in services.yaml")
    if status == 401:
        return ControlRefused(f"the API server does not know slotune's token ({words}): expired or of another cluster")
    if status == 409:
        return _conflict(words, body, ref)
    if status == 410:
        return ControlUnreachable(f"{verb} {ref}: {words}; list again", delay_s=1.0)
    if status == 429:
        return ControlUnreachable(f"{verb} {ref}: the API server asks to slow down ({words})", delay_s=_delay_s(error))
    if status >= 500:
        said = f"{verb} {ref}: the API server answered {status} ({words})"
        return Unanswered(said) if writing else ControlUnreachable(said)
    if status == 0:  # the client's way of saying "TLS"
        return ControlRefused(f"{verb} {ref}: the TLS connection to the API server was refused ({words})")
    return ControlRefused(f"{verb} {ref}: the API server refused it: {words}")


def _forbidden(words: str, body: dict[str, Any], verb: str, ref: Ref) -> ControlRefused:
    causes = (body.get("details") or {}).get("causes") or []
    if any(cause.get("reason") == "NamespaceTerminating" for cause in causes):
        return ControlRefused(f"the namespace {ref.namespace} is being deleted ({words})")
    return ControlRefused(
        f"slotune may not {verb} {ref} ({words}); its Role in {ref.namespace} needs the rule {role_snippet(verb, ref)}"
    )


def _conflict(words: str, body: dict[str, Any], ref: Ref) -> SlotuneError:
    causes = (body.get("details") or {}).get("causes") or []
    if any(cause.get("reason") == "FieldManagerConflict" for cause in causes):
        return NotOwner(f"{ref}: another manager owns the field ({words}); slotune stands down")
    return Conflict(f"{ref} was changed by somebody else meanwhile ({words})", delay_s=1.0)


def _unanswered(error: Exception, verb: str, ref: Ref, *, writing: bool) -> SlotuneError:
    reason = error.reason if isinstance(error, MaxRetryError) else error
    if isinstance(reason, NewConnectionError | ConnectTimeoutError | NameResolutionError):
        return ControlUnreachable(f"{verb} {ref}: the API server cannot be reached ({_short(reason)})")
    if isinstance(reason, SSLError):
        return ControlRefused(f"{verb} {ref}: the TLS connection to the API server was refused ({_short(reason)})")
    said = f"{verb} {ref}: no answer from the API server ({_short(reason or error)})"
    return Unanswered(said) if writing else ControlUnreachable(said)


def _short(error: BaseException) -> str:
    if isinstance(error, NewConnectionError | NameResolutionError):
        return "nobody listens there"
    if isinstance(error, HTTPError) and "timed out" in str(error):
        return "timed out"
    return bounded(f"{type(error).__name__}", 80)


def _body(error: ApiException) -> dict[str, Any]:
    try:
        body = json.loads(error.body or "")
    except (TypeError, ValueError):
        return {}
    return body if isinstance(body, dict) else {}


def _delay_s(error: ApiException) -> float:
    value = (error.headers or {}).get("Retry-After", "")
    return min(600.0, float(value)) if str(value).isdigit() else 5.0
