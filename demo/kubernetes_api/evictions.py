"""The Eviction API: a pod goes only where its PodDisruptionBudget allows it."""

from __future__ import annotations

import math
from typing import Any

from demo.kubernetes_api import status
from demo.kubernetes_api.resources import BUDGET, POD
from demo.kubernetes_api.store import Object, Store
from demo.kubernetes_api.workloads import ready_pods


def evict(store: Store, namespace: str, name: str, body: Any, *, dry: bool = False) -> None:
    """Delete a pod, or raise what a real API server answers: 404, 409 (another pod has the name by now), 429 (the
    budget), 500 (more than one budget selects it)."""
    with store.lock:
        pod = store.get(POD, namespace, name)
        conditions = ((body or {}).get("deleteOptions") or {}).get("preconditions") or {}
        wanted, found = conditions.get("uid"), pod["metadata"]["uid"]
        if wanted not in (None, found):
            raise status.ApiError(
                409,
                "Conflict",
                f'Operation cannot be fulfilled on pods "{name}": Precondition failed: UID in precondition: {wanted}, '
                f"UID in object meta: {found}",
                {"name": name, "kind": "pods"},
            )
        budgets = [one for one in store.list(BUDGET, namespace) if _selects(one, pod)]
        if len(budgets) > 1:
            raise status.internal(
                "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."
            )
        if budgets:
            _check(store, namespace, budgets[0], pod)
        if not dry:
            store.delete(POD, namespace, name)


def _selects(budget: Object, pod: Object) -> bool:
    wanted = (budget["spec"].get("selector") or {}).get("matchLabels") or {}
    return bool(wanted.items() <= pod["metadata"].get("labels", {}).items())


def _check(store: Store, namespace: str, budget: Object, pod: Object) -> None:
    """429 where fewer healthy pods would be left than the budget wants. One that is not ready takes none away."""
    pods = [one for one in store.list(POD, namespace) if _selects(budget, one)]
    ready = ready_pods(pods)
    healthy = len(ready)
    needs = _needed(budget["spec"], len(pods))
    left = healthy - (1 if any(one["metadata"]["name"] == pod["metadata"]["name"] for one in ready) else 0)
    if left < needs:
        raise status.over_budget(budget["metadata"]["name"], needs, healthy)


def _needed(spec: dict[str, Any], expected: int) -> int:
    """Healthy pods that must stay; percentages are rounded up, as Kubernetes does."""
    if "minAvailable" in spec:
        return _count(spec["minAvailable"], expected)
    return expected - _count(spec.get("maxUnavailable", 1), expected)


def _count(value: object, expected: int) -> int:
    text = str(value)
    return math.ceil(float(text[:-1]) / 100 * expected) if text.endswith("%") else int(text)
