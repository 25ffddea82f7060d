"""The bodies of the tasks: each builds the loop's parts, calls one step, and hands ids on through XCom.

Heavy imports are inside the functions: every task is a fresh process that parses its DAG file first.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from airflow.sdk.exceptions import AirflowSkipException

from detection.errors import Permanent, SlotuneError
from slotune_airflow.addresses import PAGE, base_url, run_url
from slotune_airflow.failures import as_airflow_failures
from slotune_airflow.wiring import LET_IT_CHOOSE

if TYPE_CHECKING:
    from detection.model import Incident
    from tuning.attempt import Attempt
    from tuning.loop.parts import Parts
    from tuning.model import Plan

PLAN_KEY = "plan_id"
PAUSED = (
    "tune_service is paused: what is wrong is found, and nothing is done about it. Switch it on in Airflow, or with "
    "`airflow dags unpause tune_service`"
)


def now_s(context: Mapping[str, Any]) -> float:
    """The task's own time: when Airflow started this try of it."""
    return float(context["ti"].start_date.timestamp())


def resumed_s(context: Mapping[str, Any], event: Mapping[str, Any] | None) -> float:
    """The time of a task that has waited: its start_date stays that of its first start, the trigger's is the news."""
    return max(now_s(context), float((event or {}).get("until_s", 0.0)))


def parts(context: Mapping[str, Any]) -> Parts:
    from slotune.compose import build, load_settings
    from slotune_airflow.connections import AirflowConnections

    settings = load_settings()
    base = base_url(settings.mail.airflow_url)
    page = f"{base}{PAGE}" if base else ""
    return build(settings, AirflowConnections(), links=_links(base, context), page=page)


def _links(base: str, context: Mapping[str, Any]) -> dict[str, str]:
    url = run_url(base, context)
    return {"This run in Airflow": url, "All runs": url.rpartition("/")[0]} if url else {}


# -- watch_services ---------------------------------------------------------------------------------------------------


def pull_metrics(context: Mapping[str, Any]) -> dict[str, Any]:
    from tuning.loop import watch

    with as_airflow_failures():
        only = context.get("params", {}).get("services") or ()
        return watch.pull_metrics(parts(context), now_s(context), only).model_dump(mode="json")


def detect_anomalies(context: Mapping[str, Any], sweep: Mapping[str, Any]) -> dict[str, Any]:
    from tuning.loop import watch

    with as_airflow_failures():
        return watch.detect_anomalies(parts(context), watch.Sweep.model_validate(sweep)).model_dump(mode="json")


def open_incidents(context: Mapping[str, Any], sweep: Mapping[str, Any]) -> dict[str, Any]:
    """Reconcile what a dead run left, start the runs that incidents need, then tell what there is to tell."""
    from slotune_airflow.forms import OF_INCIDENT
    from slotune_airflow.runs import TUNE_DAG, is_alive, is_paused, start_tune_run
    from tuning.loop import reconcile, watch

    with as_airflow_failures():
        loop, at_s = parts(context), now_s(context)
        alive = lambda run: is_alive(context["ti"], run, loop.ledger, at_s)  # noqa: E731 - it closes over the parts
        recovered = reconcile.reconcile_all(loop, at_s, alive=alive)
        halted = PAUSED if is_paused(TUNE_DAG) else None
        started = [
            request.run_id
            for request in watch.open_incidents(loop, watch.Sweep.model_validate(sweep), halted=halted)
            if start_tune_run(
                request.run_id,
                {"service": OF_INCIDENT, "incident_id": request.incident.id, "attempt": request.attempt},
                f"{request.incident.service}, attempt {request.attempt}: {request.incident.reason}"[:1000],
            )
        ]
        watch.tell_what_stands(loop, at_s)
        return {"started": started, "recovered": recovered, "halted": halted}


# -- learn_baselines, review_week -------------------------------------------------------------------------------------


def learn_baselines(context: Mapping[str, Any]) -> dict[str, Any]:
    from tuning.loop.learn import learn_baselines as learn
    from tuning.loop.learn_latency import learn_latency

    with as_airflow_failures():
        loop, at_s = parts(context), now_s(context)
        learned = learn(loop, at_s).model_dump(mode="json")
        return {**learned, "latency_models": learn_latency(loop, at_s)}


def review_week(context: Mapping[str, Any]) -> str:
    from tuning.loop.review import review_week as review

    with as_airflow_failures():
        return review(parts(context), now_s(context))


# -- tune_service -----------------------------------------------------------------------------------------------------


def choose_action(context: Mapping[str, Any]) -> list[str]:
    """Plan and guards; the ids of the tasks that follow."""
    from tuning.loop import act, records

    with as_airflow_failures():
        loop, at_s, params = parts(context), now_s(context), context["params"]
        incident, attempt = _incident(loop, context, at_s)
        lever = params.get("lever") or LET_IT_CHOOSE
        plan = act.choose_action(
            loop,
            incident,
            at_s,
            attempt=attempt,
            lever=None if lever == LET_IT_CHOOSE else lever,
            asked=params.get("value"),
            dry_run=bool(params.get("dry_run")),
        )
        context["ti"].xcom_push(key="reason", value=plan.reason or plan.chosen.reason)
        context["ti"].xcom_push(key=PLAN_KEY, value=plan.id)
        if not plan.chosen.changes:
            return ["hold"]
        ask = plan.mode == "approve" and not plan.dry_run
        if act.guard_plan(loop, plan, at_s, approved=ask) is not None:
            return ["hold"]
        if ask:
            context["ti"].xcom_push(key="approval", value=_asked(loop, plan, context, at_s))
            return ["approve"]
        return lever_tasks(plan, records.LEVER_STEPS)


def lever_tasks(plan: Plan, steps: Mapping[str, str]) -> list[str]:
    return [steps[change.lever] for change in plan.chosen.changes]


def _incident(loop: Parts, context: Mapping[str, Any], at_s: float) -> tuple[Incident, int]:
    """The incident of this run and the number of its attempt."""
    from detection.model import Incident
    from slotune_airflow.forms import OF_INCIDENT
    from tuning.loop import by_hand, records

    params = context["params"]
    incident_id = params.get("incident_id")
    if incident_id:
        return records.load(loop.ledger, incident_id, Incident), int(params.get("attempt") or 1)
    if params.get("service") in (None, OF_INCIDENT):
        raise Permanent("choose a service in the form (or give an incident_id)")
    return by_hand.incident(loop, params["service"], context["dag_run"].run_id, at_s)


def _asked(loop: Parts, plan: Plan, context: Mapping[str, Any], at_s: float) -> dict[str, Any]:
    """People are told, and what the question of the next task says. fields: which of its fields this plan has."""
    from tuning.loop import approve

    run, base = context["dag_run"], base_url(loop.settings.mail.airflow_url)
    # Where Airflow's own page asks; the same as HITLOperator.generate_link_to_ui of a task that runs only later.
    path = f"/dags/{quote(run.dag_id)}/runs/{quote(run.run_id, safe='')}/tasks/approve/required_actions?map_index=-1"
    text = approve.ask(loop, plan, at_s, answer_url=f"{base}{path}" if base else "")
    return {**text, "fields": [*approve.editable(plan), "comment"]}


def attempt_of(context: Mapping[str, Any], loop: Parts) -> Attempt:
    """What the ledger knows about this run's plan, in one query."""
    from tuning import attempt

    edited = context["ti"].xcom_pull(task_ids="approved", key=PLAN_KEY)
    plan_id = edited or context["ti"].xcom_pull(task_ids="choose_action", key=PLAN_KEY)
    if not plan_id:
        raise Permanent("choose_action left no plan; look at its log")
    return attempt.read(loop.ledger, plan_id)


def approved(context: Mapping[str, Any]) -> list[str]:
    """What the person answered; edits are checked against the bounds, and the guards run once more."""
    from tuning.loop import act, records
    from tuning.loop.approve import answered

    with as_airflow_failures():
        loop, at_s = parts(context), now_s(context)
        plan = attempt_of(context, loop).plan
        answer = context["ti"].xcom_pull(task_ids="approve") or {}
        plan, refusal = answered(loop, plan, answer, at_s)
        context["ti"].xcom_push(key=PLAN_KEY, value=plan.id)
        if refusal is not None or act.guard_plan(loop, plan, at_s, approved=True) is not None:
            return ["hold"]
        return lever_tasks(plan, records.LEVER_STEPS)


def pull_lever(context: Mapping[str, Any], lever: str) -> dict[str, Any]:
    """One lever. Skipped, with the reason, when the change was refused and nothing was changed."""
    from tuning.errors import ClaimRefused
    from tuning.loop import act, prove, tell

    with as_airflow_failures():
        loop, at_s = parts(context), now_s(context)
        known = attempt_of(context, loop)
        try:
            receipt, attempt = act.pull(loop, known, lever, at_s, run=context["dag_run"].run_id, now=time.time)
        except ClaimRefused as error:
            # The refusal is in the ledger; the report says it, and the incident is looked at again when there is room.
            act.hold(loop, known.plan, at_s, str(error))
            raise AirflowSkipException(str(error)) from error
        if not receipt.changed:
            if prove.nothing_changed(loop, attempt.plan):  # read anew: another lever's task may have been at work
                prove.close(loop, attempt.plan, at_s, "hold", receipt.reason or "nothing had to be changed")
            raise AirflowSkipException(receipt.reason or f"{lever} stands at the planned value already")
        tell.tell_change(loop, attempt.plan, receipt, at_s)
        return receipt.model_dump(mode="json", exclude={"evidence"})


def approvers() -> tuple[str, ...]:
    """Who may answer a request for approval, by Airflow's ids; empty: whoever Airflow lets."""
    from slotune.compose import load_settings

    with as_airflow_failures():
        return load_settings().safety.approvers


def hold(context: Mapping[str, Any]) -> str:
    from tuning.loop import act

    with as_airflow_failures():
        loop = parts(context)
        attempt = attempt_of(context, loop)
        return act.hold(loop, attempt.plan, now_s(context), attempt.refusal.reason if attempt.refusal else "")


def look_until_s(context: Mapping[str, Any], *, look: int = 1) -> float:
    from tuning.loop import prove

    with as_airflow_failures():
        loop = parts(context)
        return prove.look_until_s(loop, attempt_of(context, loop), look=look, now_s=time.time())


def verify_p95(context: Mapping[str, Any], at_s: float, *, look: int = 1) -> str:
    """The step that follows (tuning.loop.verify.verify); the decision is in the ledger."""
    from tuning.loop import verify

    with as_airflow_failures():
        loop = parts(context)
        run = context["dag_run"].run_id
        return verify.verify(loop, attempt_of(context, loop), at_s, look=look, run=run)


def keep(context: Mapping[str, Any]) -> str:
    from tuning.loop import prove

    with as_airflow_failures():
        loop, at_s = parts(context), now_s(context)
        outcome, decision, attempt = prove.last_judged(loop, attempt_of(context, loop))
        return prove.keep(loop, attempt.plan, outcome, decision, at_s).reason


def roll_back(context: Mapping[str, Any]) -> float:
    """Put the old values back; the time at which the roll-back can be judged."""
    from tuning.loop import prove

    with as_airflow_failures():
        loop, at_s = parts(context), now_s(context)
        outcome, decision, attempt = prove.last_judged(loop, attempt_of(context, loop))
        prove.roll_back(loop, attempt, outcome, decision, at_s)
        return prove.look_until_s(loop, attempt.plan.inverse(), now_s=at_s)


def rolled_back(context: Mapping[str, Any], at_s: float) -> str:
    from tuning.loop import prove

    with as_airflow_failures():
        loop = parts(context)
        attempt = attempt_of(context, loop)
        if attempt.closed is not None:
            return attempt.closed
        outcome = prove.close_rolled_back(loop, attempt, at_s)
        return outcome.reason if outcome else "the old setting was in force already"


def email_report(context: Mapping[str, Any]) -> str:
    from slotune_airflow.notes import NOTE_KEY
    from tuning.loop import tell
    from tuning.report import words

    with as_airflow_failures():
        loop = parts(context)
        try:
            attempt = attempt_of(context, loop)
        except SlotuneError as error:
            raise AirflowSkipException(f"nothing to report: {error}") from error
        report = tell.email_report(loop, attempt, now_s(context))
        context["ti"].xcom_push(key=NOTE_KEY, value=words.subject(report).removeprefix("[slotune] "))
        return report.id
