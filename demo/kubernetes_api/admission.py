"""Admission of pods in kube-apiserver's words: ResourceQuotas on their number, and PodSecurity's level "restricted"."""

from __future__ import annotations

from typing import Any

ENFORCE = "pod-security.kubernetes.io/enforce"
WARN = "pod-security.kubernetes.io/warn"
LEVELS = ("privileged", "baseline", "restricted")


def over_quota(quota: str, limit: int, used: int) -> str | None:
    """What a ResourceQuota `pods: LIMIT` says to one more pod."""
    if used < limit:
        return None
    return f"exceeded quota: {quota}, requested: pods=1, used: pods={used}, limited: pods={limit}"


def pod_security(labels: dict[str, str], pod: dict[str, Any]) -> str | None:
    """What PodSecurity says to a pod spec in a namespace with these labels."""
    return _violations(labels.get(ENFORCE, ""), pod, "violates")


def pod_warning(labels: dict[str, str], pod: dict[str, Any]) -> str | None:
    """The warning to whoever writes a workload with this pod template: only its pods will be refused."""
    return _violations(labels.get(WARN) or labels.get(ENFORCE, ""), pod, "would violate")


def _violations(level: str, pod: dict[str, Any], verb: str) -> str | None:
    if level != "restricted":
        return None
    whole = pod.get("securityContext") or {}
    containers = [*(pod.get("initContainers") or []), *(pod.get("containers") or [])]
    found = []
    for words, setting, holds in (
        ("allowPrivilegeEscalation != false", "securityContext.allowPrivilegeEscalation=false", _no_escalation),
        ("unrestricted capabilities", 'securityContext.capabilities.drop=["ALL"]', _dropped),
    ):
        bad = [str(c.get("name")) for c in containers if not holds(c.get("securityContext") or {})]
        if bad:
            found.append(f"{words} ({_named(bad)} must set {setting})")
    for words, setting, holds in (
        ("runAsNonRoot != true", "securityContext.runAsNonRoot=true", _non_root),
        ("seccompProfile", 'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost"', _seccomp),
    ):
        bad = [str(c.get("name")) for c in containers if not holds({**whole, **(c.get("securityContext") or {})})]
        if bad:
            found.append(f"{words} (pod or {_named(bad)} must set {setting})")
    return f'{verb} PodSecurity "{level}:latest": ' + ", ".join(found) if found else None


def _named(names: list[str]) -> str:
    quoted = ", ".join(f'"{name}"' for name in names)
    return f"container {quoted}" if len(names) == 1 else f"containers {quoted}"


def _no_escalation(context: dict[str, Any]) -> bool:
    return context.get("allowPrivilegeEscalation") is False


def _dropped(context: dict[str, Any]) -> bool:
    return "ALL" in ((context.get("capabilities") or {}).get("drop") or [])


def _non_root(context: dict[str, Any]) -> bool:
    return context.get("runAsNonRoot") is True


def _seccomp(context: dict[str, Any]) -> bool:
    return (context.get("seccompProfile") or {}).get("type") in ("RuntimeDefault", "Localhost")
