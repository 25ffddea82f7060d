"""The pod-template lever: env and args, the rollout, and the way back to the old ReplicaSet."""

from __future__ import annotations

from typing import Any

import pytest

from demo.kubernetes_api.resources import DEPLOYMENT, POD, REPLICA_SET, STATEFUL_SET
from detection.model import Service
from tests.fakes.actuators import service
from tests.fakes.kubernetes import World, eventually
from tuning.actuators._kubernetes_places import find_place
from tuning.actuators._kubernetes_rollouts import progress
from tuning.actuators.pod_spec import PodSpec
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NotApplied, NotOwner, OutcomeUnknown
from tuning.model import Change

pytestmark = pytest.mark.server
UP = Change(lever="batch_size", old={"batch_size": 64}, new={"batch_size": 128})
CONTAINER: dict[str, Any] = {
    "name": "vllm",
    "image": "vllm:1",
    "env": [{"name": "OTHER", "value": "x"}, {"name": "MAX_NUM_SEQS", "value": "64"}],
    "args": ["--model", "m", "--max-num-seqs=64", "--max-batch", "64"],
}


@pytest.fixture
def llm(world: World) -> World:
    world.api.add_deployment("facts", "llm", 2, spec={"containers": [CONTAINER]})
    world.steady("llm")
    return world


def lever(world: World) -> PodSpec:
    return PodSpec(world.connect(), world.clock, world.sleep)


def target(**options: object) -> Service:
    given: dict[str, object] = {
        "connection": "cluster", "namespace": "facts", "target": "llm", "env": "MAX_NUM_SEQS",
        "request_timeout_s": 0.5, "rollout_timeout_s": 60,
    }  # fmt: skip
    return service("batch_size", "pod_spec", **(given | options))


def pods(world: World, where: dict[str, Any]) -> list[Any]:
    found = world.api.store.list(POD, "facts", {"app": "llm"})
    return [c for p in found for c in p["spec"]["containers"] if where in c["env"]]


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({"env": "MAX_NUM_SEQS"}, {"env": [{"name": "OTHER", "value": "x"}, {"name": "MAX_NUM_SEQS", "value": "128"}]}),
        ({"env": "", "arg": "--max-num-seqs"}, {"args": ["--model", "m", "--max-num-seqs=128", "--max-batch", "64"]}),
        ({"env": "", "arg": "--max-batch"}, {"args": ["--model", "m", "--max-num-seqs=64", "--max-batch", "128"]}),
    ],
)
def test_changes_one_place_and_waits_for_the_rollout(llm: World, options: Any, shown: Any) -> None:
    assert lever(llm).read(target(**options)).values == {"batch_size": 64}
    receipt = lever(llm).apply(target(**options), UP, key="plan-1:batch_size")
    assert (receipt.changed, receipt.evidence["expensive"]) == (True, True)
    container = llm.deployment("llm")["spec"]["template"]["spec"]["containers"][0]
    assert container == {**CONTAINER, **shown}
    assert progress(llm.deployment("llm"))[0] == "done"
    assert not lever(llm).apply(target(**options), UP, key="plan-1:batch_size").changed


def test_every_pod_runs_the_new_template_before_the_receipt(llm: World) -> None:
    lever(llm).apply(target(), UP, key="k")
    assert len(pods(llm, {"name": "MAX_NUM_SEQS", "value": "128"})) == 2
    assert not pods(llm, {"name": "MAX_NUM_SEQS", "value": "64"})


def test_the_way_back_uses_the_old_replica_set(llm: World) -> None:
    lever(llm).apply(target(), UP, key="k")
    lever(llm).apply(target(), UP.inverse(), key="k2")
    sets = [s for s in llm.api.store.list(REPLICA_SET, "facts") if s["metadata"]["name"].startswith("llm-")]
    assert len(sets) == 2  # not a third one


def broken_above_64(spec: dict[str, Any]) -> bool:
    return {"name": "MAX_NUM_SEQS", "value": "128"} not in spec["containers"][0].get("env", [])


def test_a_slow_rollout_is_rolled_back_and_the_old_pods_never_left(llm: World) -> None:
    llm.api.cluster.healthy = broken_above_64
    seen: list[int] = []
    llm.on_sleep = lambda: seen.append(llm.ready("llm"))
    with pytest.raises(NotApplied, match=r"did not finish in time.*batch size 64 is back and ready"):
        lever(llm).apply(target(rollout_timeout_s=20), UP, key="k")
    assert lever(llm).read(target()).values == {"batch_size": 64}
    assert min(seen) >= 2
    eventually(lambda: len(pods(llm, {"name": "MAX_NUM_SEQS", "value": "64"})) == 2)


def test_a_failed_rollout_is_rolled_back_with_the_controllers_words(llm: World) -> None:
    def impatient(obj: dict[str, Any]) -> dict[str, Any]:
        obj["spec"]["progressDeadlineSeconds"] = 0
        return obj

    llm.api.store.update(DEPLOYMENT, "facts", "llm", impatient, "kubectl")
    llm.steady("llm")
    llm.api.cluster.healthy = broken_above_64
    with pytest.raises(NotApplied, match=r"failed \(ProgressDeadlineExceeded.*batch size 64 is back"):
        lever(llm).apply(target(), UP, key="k")


def test_lost_answers_and_conflicts(llm: World) -> None:
    llm.api.fail_next(methods=("PATCH",), times=2, code=409)
    llm.api.fail_next(methods=("PATCH",), drop=True, apply_after_s=0.0)
    assert lever(llm).apply(target(), UP, key="k").changed
    llm.api.fail_next(methods=("PATCH",), times=99, drop=True)
    with pytest.raises(OutcomeUnknown, match="may still land"):
        lever(llm).apply(target(), UP.inverse(), key="k2")


def test_the_cluster_away_before_anything_was_sent(llm: World) -> None:
    llm.api.fail_next(methods=("GET",), code=503)
    with pytest.raises(ControlUnreachable):
        lever(llm).apply(target(), UP, key="k")


def test_somebody_elses_value_is_left_alone(llm: World) -> None:
    other = Change(lever="batch_size", old={"batch_size": 32}, new={"batch_size": 128})
    with pytest.raises(NotOwner, match="shows 64, neither 32 nor 128"):
        lever(llm).apply(target(), other, key="k")


def test_gitops_owners(llm: World) -> None:
    llm.api.add_deployment(
        "facts", "shop", 1, spec={"containers": [CONTAINER]}, labels={"kustomize.toolkit.fluxcd.io/name": "shop"}
    )
    with pytest.raises(NotOwner, match="Flux"):
        lever(llm).apply(target(target="shop"), UP, key="k")
    body = {"metadata": {"name": "llm"}, "spec": {"template": {"spec": {"containers": [CONTAINER]}}}}
    llm.api.store.apply(DEPLOYMENT, "facts", "llm", body, "deployer", force=True)
    with pytest.raises(NotOwner, match="deployer applies this field"):
        lever(llm).apply(target(), UP, key="k")


@pytest.mark.parametrize(
    ("container", "options", "error", "words"),
    [
        ({"env": []}, {"env": "MAX_NUM_SEQS"}, ControlRefused, "no environment variable MAX_NUM_SEQS"),
        ({"env": [{"name": "N", "valueFrom": {}}]}, {"env": "N"}, ControlRefused, "comes from a Secret"),
        ({"env": [{"name": "N", "value": "auto"}]}, {"env": "N"}, ControlRefused, "is no number"),
        ({"args": ["--n"]}, {"arg": "--n"}, ControlRefused, "no argument --n"),
        ({}, {"env": "N", "container": "x"}, ConfigError, "no container x; it has vllm"),
    ],
)
def test_places_that_cannot_be_used(container: Any, options: Any, error: type[Exception], words: str) -> None:
    workload = {"spec": {"template": {"spec": {"containers": [{**CONTAINER, **container}]}}}}
    with pytest.raises(error, match=words):
        find_place(workload, options.get("container", ""), options.get("env", ""), options.get("arg", ""))


def test_two_containers_need_a_name() -> None:
    workload = {"spec": {"template": {"spec": {"containers": [CONTAINER, {**CONTAINER, "name": "sidecar"}]}}}}
    with pytest.raises(ConfigError, match="2 containers"):
        find_place(workload, "", "MAX_NUM_SEQS", "")
    assert find_place(workload, "sidecar", "MAX_NUM_SEQS", "").pointer.startswith("/spec/template/spec/containers/1/")


def test_another_knob_cannot_be_changed_here(llm: World) -> None:
    change = Change(
        lever="batch_size",
        old={"batch_size": 64, "batch_timeout_ms": 1.0},
        new={"batch_size": 64, "batch_timeout_ms": 2.0},
    )
    with pytest.raises(ConfigError, match="batch size only"):
        lever(llm).apply(target(), change, key="k")


def test_stateful_sets_roll_too(llm: World) -> None:
    llm.api.add_deployment("facts", "db", 2, kind=STATEFUL_SET, spec={"containers": [CONTAINER]})
    db = target(target="db", kind="StatefulSet")
    eventually(lambda: "2 of 2 pods" in lever(llm).read(db).note)
    assert lever(llm).apply(db, UP, key="k").changed
    assert lever(llm).read(db).values == {"batch_size": 128}


def test_a_kind_without_a_pod_template_is_refused(llm: World) -> None:
    with pytest.raises(ConfigError, match="Deployment or a StatefulSet"):
        lever(llm).read(target(kind="Job"))
