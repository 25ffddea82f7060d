"""What a Kubernetes API server's answers mean for a change, as sentences that name the object and the way out."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from detection.http_border import Answer, HttpFailure, retry_after_s
from tuning.actuators import _kubernetes_shape as shape
from tuning.actuators._http import Unanswered
from tuning.actuators._options import bounded
from tuning.errors import ConfigError, Conflict, ControlRefused, ControlUnreachable, NotOwner, SlotuneError

RBAC = re.compile(r"\bcannot \w+ (resource|path)\b")
"""How the authoriser says that a right is missing; admission's refusals are 403 too, and of another kind."""
ADMISSION = (
    ("exceeded quota", "a ResourceQuota has no room for it"),
    ("violates PodSecurity", "the namespace's PodSecurity level refuses the pod"),
    (" usage per ", "a LimitRange refuses it"),
    ("error looking up service account", "its service account does not exist"),
    ("admission webhook", "an admission webhook refuses it"),
    ("denied request", "an admission policy refuses it"),
)


class Missing(ControlRefused):
    """There is no such object (404)."""


class Forbidden(ControlRefused):
    """The authoriser says that these credentials may not do this (403); an API server that is just starting says so
    too, of rights that it will know in a moment."""


class Disallowed(ControlUnreachable):
    """A PodDisruptionBudget allows no eviction of the pod now (429): nothing was changed."""


class NotAdmitted(ControlRefused):
    """Admission (a quota, PodSecurity, a LimitRange, a webhook, a policy) refuses the object, whatever the rights."""


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
        parts = ["apis", self.group, self.version] if self.group else ["api", self.version]
        parts += ["namespaces", self.namespace, self.plural, self.name, self.sub]
        return "".join(f"/{_segment(part, self)}" for part in parts if part)

    @property
    def resource(self) -> str:
        return f"{self.plural}/{self.sub}" if self.sub else self.plural

    def rule(self, verb: str) -> str:
        """The rule of a Role that grants this one right."""
        names = f', resourceNames: ["{self.name}"]' if self.name else ""
        return f'{{apiGroups: ["{self.group}"], resources: ["{self.resource}"]{names}, verbs: ["{verb}"]}}'

    def __str__(self) -> str:
        said = f"{self.resource} {self.namespace}/{self.name}" if self.name else f"{self.resource} of {self.namespace}"
        return bounded(said)


def _segment(text: str, ref: Ref) -> str:
    if text in (".", ".."):
        raise ConfigError(f"{ref.plural} of {ref.namespace!r}: {text!r} is no name")
    return quote(text, safe="")


def answered(answer: Answer, verb: str, ref: Ref, *, writing: bool) -> SlotuneError:
    """What an answer other than 2xx means. Unanswered: a write that may have landed all the same."""
    status, body = answer.status, shape.whole(answer.body.decode("utf-8", "replace"))
    words = bounded(str(body.get("message") or f"HTTP {status}"))
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
    if status == 429 and "DisruptionBudget" in _causes(body):
        said = bounded("; ".join([words, *_causes(body, "message")]))
        return Disallowed(f"{ref} may not be evicted now: {said}", delay_s=_delay_s(answer))
    if status == 429:
        return ControlUnreachable(f"{verb} {ref}: the API server asks to slow down ({words})", delay_s=_delay_s(answer))
    if status >= 500:
        said = f"{verb} {ref}: the API server answered {status} ({words})"
        return Unanswered(said, status=status) if writing else ControlUnreachable(said)
    if 300 <= status <= 399:
        return ControlRefused(f"{verb} {ref}: the address sends elsewhere (HTTP {status}); it is no API server's own")
    known = next((what for mark, what in ADMISSION if mark in words), None)
    if known:
        return NotAdmitted(f"{verb} {ref}: {known}: {words}")
    return ControlRefused(f"{verb} {ref}: the API server refused it: {words}")


def _forbidden(words: str, body: Mapping[str, object], verb: str, ref: Ref) -> ControlRefused:
    if "NamespaceTerminating" in _causes(body):
        return ControlRefused(f"the namespace {ref.namespace} is being deleted ({words})")
    known = next((what for mark, what in ADMISSION if mark in words), None)
    if known:
        return NotAdmitted(f"{verb} {ref}: {known}; this is no matter of slotune's Role: {words}")
    if not RBAC.search(words):
        return NotAdmitted(f"{verb} {ref}: the API server forbids it, and not for want of a right: {words}")
    return Forbidden(
        f"slotune may not {verb} {ref} ({words}); its Role in {ref.namespace} needs the rule {ref.rule(verb)}"
    )


def _causes(body: Mapping[str, object], part: str = "reason") -> list[str]:
    """The reasons (or another part) of a Status' causes."""
    details = body.get("details")
    causes = details.get("causes") if isinstance(details, dict) else None
    return [str(c.get(part)) for c in causes if isinstance(c, dict)] if isinstance(causes, list) else []


def _conflict(words: str, body: Mapping[str, object], ref: Ref) -> SlotuneError:
    if "FieldManagerConflict" in _causes(body):
        return NotOwner(f"{ref}: another manager owns the field ({words}); slotune stands down")
    return Conflict(f"{ref} was changed by somebody else meanwhile ({words})", delay_s=1.0)


def unanswered(
    failure: HttpFailure, verb: str, ref: Ref, *, writing: bool, timeout_s: float, limit_bytes: int
) -> SlotuneError:
    """What an exchange that ended without an answer means. Unanswered: a write that may have landed."""
    if failure.kind == "tls" and not failure.sent:
        detail = f" ({bounded(failure.detail, 160)})" if failure.detail else ""
        return ControlRefused(f"{verb} {ref}: the TLS connection to the API server was refused{detail}")
    if not failure.sent:
        why = {
            "timeout": f"no connection within {timeout_s:g} s",
            "unresolved": "no host has this name",
        }.get(failure.kind, "nobody listens there")
        return ControlUnreachable(f"{verb} {ref}: the API server cannot be reached ({why})")
    size = f"the answer has more than {limit_bytes >> 20} MiB"
    if failure.kind == "too_large" and not writing:
        return ControlRefused(f"{verb} {ref}: {size}; is this the address of an API server?")
    timeout, cut = f"no whole answer within {timeout_s:g} s", "the connection broke off"
    why = {"timeout": timeout, "too_large": size, "cut": cut}.get(failure.kind, "none that can be read")
    said = f"{verb} {ref}: no answer from the API server ({why})"
    return Unanswered(said) if writing else ControlUnreachable(said)


def _delay_s(answer: Answer) -> float:
    return retry_after_s(answer.headers.get("retry-after"), default_s=5.0, now_s=time.time(), most_s=600.0)
