"""What the HPA controller does, row by row: on the stand-in (whose sync is set to 0.05 s) or on a real server (15 s)."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
from kubernetes import client

from tests.contracts.kubernetes_subject import Subject, hpa_body, pods_metric, stand_in_only

pytestmark = pytest.mark.server
METRIC = "needs a metrics API whose numbers the test sets"


def spec(**values: Any) -> dict[str, Any]:
    return {"spec": values}


def settled(subject: Subject, wanted: int) -> None:
    subject.until(lambda: subject.replicas() == wanted)


def condition(subject: Subject, kind: str, name: str = "web") -> Any:
    """A condition of an HPA, once the controller has written it."""

    def found() -> Any:
        return next((c for c in subject.read(name).status.conditions or [] if c.type == kind), None)

    return subject.until(found)


def quick(subject: Subject, metric: Callable[[int], int | None] | None = None) -> None:
    """Somebody acts on HPAs here (or the row is skipped), and on the stand-in at once."""
    subject.needs_hpa_controller()
    if subject.stand_in:
        from demo.kubernetes_api.hpa import HpaState

        subject.stand_in._hpas[("facts", "web")] = HpaState(0.05, metric)


def test_the_floor_rises_in_one_step_without_metrics_or_policies(subject: Subject) -> None:
    quick(subject)
    subject.patch(spec(behavior={"scaleUp": {"selectPolicy": "Disabled"}}))
    subject.patch(spec(minReplicas=10))
    seen = {2}
    subject.until(lambda: seen.add(subject.replicas()) or 10 in seen)
    assert seen == {2, 10}


def test_a_lowered_floor_keeps_the_replicas_while_metrics_are_missing(subject: Subject) -> None:
    quick(subject)
    subject.patch(spec(minReplicas=4))
    settled(subject, 4)
    subject.patch(spec(minReplicas=2))
    time.sleep(0.4 if subject.stand_in else 45)
    settled(subject, 4)


@stand_in_only(METRIC)
def test_a_lowered_floor_is_not_cushioned(subject: Subject) -> None:
    quick(subject, lambda _: 2)
    subject.patch(spec(minReplicas=10))
    settled(subject, 10)
    started = time.monotonic()
    subject.patch(spec(minReplicas=2))
    seen = {10}
    subject.until(lambda: seen.add(subject.replicas()) or 2 in seen)
    assert seen == {2, 10} and time.monotonic() - started < 2  # one step, although the downscale window is 300 s


@pytest.mark.parametrize(("by_hand", "becomes"), [(12, 10), (1, 2)])
def test_replicas_set_by_hand_come_back_into_the_bounds(subject: Subject, by_hand: int, becomes: int) -> None:
    quick(subject)
    subject.scale(by_hand)
    settled(subject, becomes)


def test_zero_replicas_switch_the_hpa_off(subject: Subject) -> None:
    quick(subject)
    subject.scale(0)
    time.sleep(0.4 if subject.stand_in else 20)
    settled(subject, 0)
    active = condition(subject, "ScalingActive")
    assert (active.status, active.reason, active.message) == (
        "False",
        "ScalingDisabled",
        "scaling is disabled since the replica count of the target is zero",
    )


def test_the_controller_writes_through_the_scale_subresource(subject: Subject) -> None:
    quick(subject)
    subject.patch(spec(minReplicas=4))
    settled(subject, 4)
    managers = subject.apps.read_namespaced_deployment("web", subject.namespace).metadata.managed_fields
    assert [m.manager for m in managers if m.subresource == "scale"] == ["kube-controller-manager"]


@stand_in_only(METRIC)
def test_the_floor_that_rules_shows_in_the_conditions(subject: Subject) -> None:
    quick(subject, lambda _: 2)
    subject.patch(spec(minReplicas=4))
    settled(subject, 4)
    subject.until(lambda: condition(subject, "ScalingLimited").reason == "TooFewReplicas")
    limited = condition(subject, "ScalingLimited")
    assert (limited.status, limited.message) == (
        "True",
        "the desired replica count is less than the minimum replica count",
    )


def test_without_metrics_scaling_is_inactive_and_the_floor_still_rises(subject: Subject) -> None:
    quick(subject)
    subject.patch(spec(minReplicas=4, metrics=pods_metric()))
    settled(subject, 4)
    subject.until(lambda: condition(subject, "ScalingActive").reason == "FailedGetPodsMetric")
    assert condition(subject, "ScalingActive").status == "False"
    subject.patch(spec(minReplicas=6))
    settled(subject, 6)
    subject.patch(spec(minReplicas=3))
    time.sleep(0.4 if subject.stand_in else 45)
    assert subject.replicas() == 6


def test_replicas_set_by_hand_within_the_bounds_stay_while_the_metric_is_missing(subject: Subject) -> None:
    quick(subject)
    subject.scale(7)
    time.sleep(0.4 if subject.stand_in else 20)
    assert subject.replicas() == 7


@stand_in_only(METRIC)
def test_replicas_set_by_hand_stay_where_the_metric_is_at_its_target(subject: Subject) -> None:
    quick(subject, lambda current: current)
    subject.scale(8)
    time.sleep(0.4)
    assert subject.replicas() == 8


def test_a_missing_target_is_accepted_and_named_in_the_conditions(subject: Subject) -> None:
    subject.needs_hpa_controller()
    subject.create(hpa_body("lost", target="missing"))
    able = condition(subject, "AbleToScale", "lost")
    assert (able.status, able.reason) == ("False", "FailedGetScale")
    assert able.message == (
        'the HPA controller was unable to get the target\'s current scale: deployments.apps "missing" not found'
    )


@stand_in_only(METRIC)
def test_scaling_up_by_metric_doubles(subject: Subject) -> None:
    from demo.kubernetes_api.hpa import HpaState, decide

    state = HpaState(15, lambda _: 20)
    bounds = {"minReplicas": 1, "maxReplicas": 20}
    replicas, seen = 4, []
    for at_s in (0.0, 15.0, 30.0):
        wanted, _, _ = decide(bounds, state, replicas, at_s)
        state.moves.append((at_s, wanted - replicas))
        replicas = wanted
        seen.append(replicas)
    assert seen == [8, 16, 20]


@stand_in_only(METRIC)
def test_policies_cushion_the_way_down(subject: Subject) -> None:
    from demo.kubernetes_api.hpa import HpaState, decide

    state = HpaState(15, lambda _: 2)
    rules = {"scaleDown": {"policies": [{"type": "Pods", "value": 1, "periodSeconds": 15}]}}
    bounds = {"minReplicas": 2, "maxReplicas": 10, "behavior": rules}
    replicas, seen = 10, []
    for tick in range(8):
        wanted, _, _ = decide(bounds, state, replicas, tick * 15.0)
        state.moves.append((tick * 15.0, wanted - replicas))
        replicas = wanted
        seen.append(replicas)
    assert seen == [9, 8, 7, 6, 5, 4, 3, 2]


@stand_in_only(METRIC)
def test_a_metric_that_drops_waits_for_the_stabilisation_window(subject: Subject) -> None:
    from demo.kubernetes_api.hpa import HpaState, decide

    wants = {"now": 4}
    state = HpaState(15, lambda _: wants["now"])
    bounds = {"minReplicas": 1, "maxReplicas": 20}
    assert decide(bounds, state, 4, 0.0)[0] == 4
    wants["now"] = 2
    seen = [decide(bounds, state, 4, at_s)[0] for at_s in (15.0, 150.0, 290.0, 305.0)]
    assert seen == [4, 4, 4, 2]


@stand_in_only(METRIC)
@pytest.mark.parametrize(
    ("wanted", "bounds", "reason"),
    [(2, (4, 20), "TooFewReplicas"), (30, (4, 8), "TooManyReplicas"), (6, (4, 8), "DesiredWithinRange")],
)
def test_the_bound_that_rules_is_named(subject: Subject, wanted: int, bounds: tuple[int, int], reason: str) -> None:
    from demo.kubernetes_api.hpa import HpaState, decide

    low, high = bounds
    spec_ = {"minReplicas": low, "maxReplicas": high, "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}}}
    _, conditions, _ = decide(spec_, HpaState(15, lambda _: wanted), low, 0.0)
    limited = next(c for c in conditions if c["type"] == "ScalingLimited")
    assert (limited["reason"], limited["status"]) == (reason, str(reason != "DesiredWithinRange"))


def test_a_rescale_leaves_an_event(subject: Subject) -> None:
    quick(subject)
    subject.patch(spec(minReplicas=4))
    settled(subject, 4)
    events = client.CoreV1Api(subject.api_client).list_namespaced_event(subject.namespace).items
    said = [e.message for e in events if e.reason == "SuccessfulRescale"]
    assert "New size: 4; reason: Current number of replicas below Spec.MinReplicas" in said


def test_an_unknown_target_kind_is_accepted_and_named_in_the_conditions(subject: Subject) -> None:
    subject.needs_hpa_controller()
    body = hpa_body("odd")
    body["spec"]["scaleTargetRef"]["kind"] = "Nope"
    subject.create(body)
    assert 'no matches for kind "Nope" in group "apps"' in condition(subject, "AbleToScale", "odd").message
