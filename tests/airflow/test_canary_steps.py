"""verify_p95 in Airflow when one replica was changed first: how the operator waits for each verdict."""

from __future__ import annotations

from typing import Any

import pytest

pytestmark = pytest.mark.airflow
UNTIL_S = 2_000_000_000.0


def operator(step: str) -> Any:
    """The operator on a loop whose next step is known."""
    from slotune_airflow.operators import VerifyP95Operator

    class Known(VerifyP95Operator):
        def verified(self, context: Any, at_s: float, *, look: int = 1) -> str:
            return step

        def until_s(self, context: Any, *, look: int = 1) -> float:
            return UNTIL_S + look

    return Known(task_id="verify_p95")


@pytest.mark.parametrize(
    ("method", "step", "goes_on_at", "look"),
    [
        ("execute", "look", "look_at_all", 1),
        ("execute", "settle", "look_again", 2),
        ("look_again", "look", "look_at_all", 1),
        ("look_at_all", "settle", "look_again", 2),
    ],
)
def test_the_task_waits_for_the_look_that_is_due(method: str, step: str, goes_on_at: str, look: int) -> None:
    from datetime import UTC, datetime
    from types import SimpleNamespace

    from airflow.sdk.exceptions import TaskDeferred

    context = {"ti": SimpleNamespace(start_date=datetime.now(UTC))}
    with pytest.raises(TaskDeferred) as found:
        getattr(operator(step), method)(context)
    assert (found.value.method_name, found.value.trigger.until_s) == (goes_on_at, UNTIL_S + look)
    assert callable(getattr(operator(step), goes_on_at))
