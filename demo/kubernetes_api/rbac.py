"""Who may do what: bearer tokens, users, and Role rules."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from demo.kubernetes_api.status import unauthorized

ANONYMOUS = "system:anonymous"


@dataclass
class Rbac:
    """Without any token everybody may do everything; with the first token the door closes."""

    tokens: dict[str, str] = field(default_factory=dict)
    rules: dict[tuple[str, str], list[dict[str, Any]]] = field(default_factory=dict)
    admins: set[str] = field(default_factory=set)

    def user(self, authorization: str | None) -> str:
        """The user of an Authorization header; 401 for a token that nobody knows."""
        if not authorization:
            return ANONYMOUS
        token = authorization.removeprefix("Bearer ").strip()
        if not self.tokens:
            return "admin"
        if token not in self.tokens:
            raise unauthorized()
        return self.tokens[token]

    def may(self, user: str, verb: str, group: str, resource: str, namespace: str | None, name: str) -> bool:
        """resource with its subresource: "deployments/scale". namespace None: cluster scope."""
        if not self.tokens or user in self.admins:
            return True
        if (group, resource) == ("authorization.k8s.io", "selfsubjectaccessreviews"):
            return True
        for rule in self.rules.get((user, namespace or ""), []):
            if (
                _holds(rule.get("apiGroups", []), group)
                and _holds(rule.get("resources", []), resource)
                and _holds(rule.get("verbs", []), verb)
                and (not rule.get("resourceNames") or name in rule["resourceNames"])
            ):
                return True
        return False

    def add(self, user: str, namespace: str, rules: Sequence[dict[str, Any]]) -> None:
        self.rules.setdefault((user, namespace), []).extend(rules)


def _holds(allowed: Sequence[str], wanted: str) -> bool:
    return "*" in allowed or wanted in allowed
