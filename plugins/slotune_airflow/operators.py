"""Tasks that wait without holding a worker slot: settle, verify_p95 (a second look), roll_back, approve."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from airflow.providers.standard.operators.branch import BranchMixIn
from airflow.providers.standard.operators.hitl import HITLOperator
from airflow.sdk import BaseOperator, Context, Param
from airflow.sdk.definitions.param import ParamsDict

from slotune_airflow import steps
from slotune_airflow.triggers import UntilTrigger

_SPARE = timedelta(minutes=10)


def _wait(operator: BaseOperator, until_s: float, context: Context, method_name: str) -> None:
    left = timedelta(seconds=max(until_s - datetime.now(UTC).timestamp(), 0.0))
    operator.defer(trigger=UntilTrigger(until_s), method_name=method_name, timeout=left + _SPARE)


class SettleOperator(BaseOperator):
    """Waits until the change has settled and has been looked at for long enough."""

    def execute(self, context: Context) -> None:
        _wait(self, steps.look_until_s(context), context, "settled")

    def settled(self, context: Context, event: dict[str, Any] | None = None) -> None:
        """Nothing to do: the wait is over."""


class VerifyP95Operator(BaseOperator, BranchMixIn):
    """Judges, and branches into keep or roll_back; where the data cannot tell, it waits for one longer look.

    After one replica did well on its own, the others are changed, and the whole service is judged in its turn.
    """

    inherits_from_skipmixin = True

    def execute(self, context: Context) -> Any:
        return self._follow(context, self.verified(context, steps.now_s(context)))

    def look_again(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        return self._follow(context, self.verified(context, steps.resumed_s(context, event), look=2))

    def look_at_all(self, context: Context, event: dict[str, Any] | None = None) -> Any:
        return self._follow(context, self.verified(context, steps.resumed_s(context, event)))

    def verified(self, context: Context, at_s: float, *, look: int = 1) -> str:
        return steps.verify_p95(context, at_s, look=look)

    def until_s(self, context: Context, *, look: int = 1) -> float:
        return steps.look_until_s(context, look=look)

    def _follow(self, context: Context, step: str) -> Any:
        if step == "settle":
            _wait(self, self.until_s(context, look=2), context, "look_again")
        if step == "look":
            _wait(self, self.until_s(context), context, "look_at_all")
        return self.do_branch(context, step)


class RollBackOperator(BaseOperator):
    """Puts the old setting back at once, waits until that has settled, and verifies it like any change."""

    def execute(self, context: Context) -> None:
        _wait(self, steps.roll_back(context), context, "settled")

    def settled(self, context: Context, event: dict[str, Any] | None = None) -> str:
        return steps.rolled_back(context, steps.resumed_s(context, event))


class AskPersonOperator(HITLOperator):
    """Shows only the fields of the plan's own levers, and lets only those answer whose yes counts (safety.approvers),
    where they are named."""

    def execute(self, context: Context) -> Any:
        self.name_approvers()
        self.choose_fields(context)
        return super().execute(context)

    def execute_complete(self, context: Context, event: dict[str, Any]) -> Any:
        self.choose_fields(context)
        return super().execute_complete(context, event)

    def choose_fields(self, context: Context) -> None:
        """A run that was asked before the fields were told apart has all of them."""
        asked = context["ti"].xcom_pull(task_ids="choose_action", key="approval") or {}
        if "fields" in asked:
            kept = [name for name in self.params if name in asked["fields"]]
            self.params = ParamsDict({name: self.params.get_param(name) for name in kept})

    def name_approvers(self) -> None:
        self.assigned_users = [{"id": name, "name": name} for name in steps.approvers()] or None


def ask_person(task_id: str, *, response_timeout: timedelta) -> AskPersonOperator:
    """Asks a person: the plan, what was rejected and why, what it is expected to bring. Silence means no."""
    text = "ti.xcom_pull(task_ids='choose_action', key='approval')"
    return AskPersonOperator(
        task_id=task_id,
        task_display_name="ask a person",
        subject=f"{{{{ {text}['subject'] }}}}",
        body=f"{{{{ {text}['body'] }}}}",
        options=["Approve", "Reject"],
        defaults="Reject",
        response_timeout=response_timeout,
        params={
            "batch_size": Param(None, type=["null", "integer"], title="Another batch size (within the bounds)"),
            "max_num_seqs": Param(None, type=["null", "integer"], title="Another max-num-seqs (language models)"),
            "min_replicas": Param(None, type=["null", "integer"], title="Another minReplicas (within the bounds)"),
            "comment": Param(None, type=["null", "string"], title="Comment for the record"),
        },
    )
