"""The pod-template lever: env and args, the rollout, and the way back to the old ReplicaSet."""

from __future__ import annotations

from typing import Any

import pytest

from demo.kubernetes_api.resources import DEPLOYMENT, POD, REPLICA_SET, STATEFUL_SET
from detection.model import Service
from tests.fakes.actuators import service
from tests.fakes.kubernetes import World, eventually
from tuning.actuators._kubernetes_places import find_place, value_in_pod
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


ENV = {"env": "MAX_NUM_SEQS"}
ARG = {"arg": "--max-num-seqs"}
SCRIPT = "set -e\n# once: --max-num-seqs 8\nexec vllm serve m \\\n  --max-num-seqs {} --port 8000"


def entry(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


@pytest.mark.parametrize(
    ("container", "option", "shown"),
    [
        ({"env": [entry("MAX_NUM_SEQS", "1"), entry("MAX_NUM_SEQS", "64")]}, ENV, ("env/1/value", "128")),
        ({"env": [entry("N", "64"), entry("MAX_NUM_SEQS", "$(N)")]}, ENV, ("env/0/value", "128")),
        ({"command": ["vllm", "--max-num-seqs", "1"], "args": ["--max-num-seqs", "64"]}, ARG, ("args/1", "128")),
        ({"command": ["vllm", "--max-num-seqs=64"], "args": ["--port", "1"]}, ARG, ("command/1", "--max-num-seqs=128")),
        ({"command": ["vllm", "--max-num-seqs"], "args": ["64"]}, ARG, ("args/0", "128")),
        ({"args": ["--max-num-seqs=1", "--max_num_seqs=64"]}, ARG, ("args/1", "--max_num_seqs=128")),
        ({"args": ["--max_num-seqs", "64"]}, {"arg": "--max_num_seqs"}, ("args/1", "128")),
        ({"args": ["-b", "64", "-B", "1"]}, {"arg": "-b"}, ("args/1", "128")),
        ({"args": ["--max-num-seqs=$(N)"], "env": [entry("N", "1"), entry("N", "64")]}, ARG, ("env/1/value", "128")),
        (
            {"command": ["/bin/sh", "-c"], "args": ["vllm serve m --max-num-seqs 64"]},
            ARG,
            ("args/0", "vllm serve m --max-num-seqs 128"),
        ),
        (
            {"command": ["bash", "-euo", "pipefail", "-lc", SCRIPT.format('"64"')]},
            ARG,
            ("command/4", SCRIPT.format('"128"')),
        ),
        (
            {"args": ["tini", "--", "sh", "-c", "vllm serve m --max_num_seqs=1 --max-num-seqs=64"]},
            ARG,
            ("args/4", "vllm serve m --max_num_seqs=1 --max-num-seqs=128"),
        ),
        (
            {"command": ["sh", "-c", 'vllm serve m --max-num-seqs "$N"'], "env": [entry("N", "64")]},
            ARG,
            ("env/0/value", "128"),
        ),
        (
            {"command": ["sh", "-c", "export MAX_NUM_SEQS=64; serve"], "env": [entry("MAX_NUM_SEQS", "1")]},
            ENV,
            ("command/2", "export MAX_NUM_SEQS=128; serve"),
        ),
    ],
)
def test_the_place_that_counts_is_the_one_that_is_changed(
    container: dict[str, Any], option: dict[str, str], shown: tuple[str, str]
) -> None:
    whole = {"spec": {"template": {"spec": {"containers": [{"name": "c", **container}]}}}}
    place = find_place(whole, "", option.get("env", ""), option.get("arg", ""))
    assert place.value == 64
    assert (place.pointer.partition("/containers/0/")[2], place.with_value(128)) == shown
    pod = {"spec": whole["spec"]["template"]["spec"]}
    assert value_in_pod(pod, "", option.get("env", ""), option.get("arg", "")) == 64


@pytest.mark.parametrize(
    ("container", "option", "words"),
    [
        ({"env": [entry("MAX_NUM_SEQS", "1"), {"name": "MAX_NUM_SEQS", "valueFrom": {}}]}, ENV, "comes from a Secret"),
        ({"envFrom": [{"configMapRef": {}}]}, ENV, "its envFrom may"),
        ({"args": ["--max-num-seqs=$(N)"]}, ARG, "no environment variable N"),
        ({"args": ["--max-num-seqs=$(N)", "--b=$(N)"], "env": [entry("N", "1")]}, ARG, "which 2 places use"),
        ({"env": [entry("A", "$(A)"), entry("MAX_NUM_SEQS", "$(A)")]}, ENV, "2 places use|refer to itself|no environment"),
        ({"args": ["--max-num-seqs", "--port"]}, ARG, "is no number"),
        ({"args": ["--max-num-seqs", "6_4"]}, ARG, "is no number"),
        ({"args": ["--max-num-seqs", "\u0663"]}, ARG, "is no number"),
        ({"args": ["--max-num-seqs=" + "9" * 400]}, ARG, "is no number"),
        ({"command": ["sh", "-c", "a --max-num-seqs 1 || a --max-num-seqs 2"]}, ARG, "in several commands"),
        ({"command": ["sh", "-c", "# --max-num-seqs 1"]}, ARG, "no argument --max-num-seqs in its script"),
        ({"command": ["sh", "-c", "MAX_NUM_SEQS=1 a; MAX_NUM_SEQS=2 b"]}, ENV, "sets MAX_NUM_SEQS 2 times"),
        ({"command": ["sh", "-c", "a --max-num-seqs ${N:-64}"]}, ARG, "is no number"),
    ],
)
def test_where_nobody_can_tell_what_counts_nothing_is_changed(
    container: dict[str, Any], option: dict[str, str], words: str
) -> None:
    whole = {"spec": {"template": {"spec": {"containers": [{"name": "c", **container}]}}}}
    with pytest.raises(ControlRefused, match=words):
        find_place(whole, "", option.get("env", ""), option.get("arg", ""))


def edit(world: World, kind: Any, name: str, manager: str = "kubectl-edit", **spec: Any) -> None:
    def change(obj: dict[str, Any]) -> dict[str, Any]:
        obj["spec"] |= spec
        return obj

    world.api.store.update(kind, "facts", name, change, manager)


@pytest.mark.parametrize(
    ("kind", "spec", "words"),
    [
        ("Deployment", {"paused": True}, "its rollout is paused"),
        ("StatefulSet", {"updateStrategy": {"type": "OnDelete"}}, "updateStrategy is OnDelete"),
        (
            "StatefulSet",
            {"updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 1}}},
            "has partition 1",
        ),
    ],
)
def test_a_rollout_that_cannot_happen_is_refused_at_once(
    world: World, kind: str, spec: dict[str, Any], words: str
) -> None:
    resource = DEPLOYMENT if kind == "Deployment" else STATEFUL_SET
    world.api.add_deployment("facts", "llm", 2, kind=resource, spec={"containers": [CONTAINER]})
    edit(world, resource, "llm", **spec)
    before = world.clock()
    service = target(kind=kind)
    assert words in lever(world).read(service).note
    with pytest.raises(ControlRefused, match=rf"{words}.*nothing was changed"):
        lever(world).apply(service, UP, key="k")
    assert world.clock() - before < 5
    assert lever(world).read(service).values == {"batch_size": 64}


def test_a_template_that_a_controller_made_is_left_alone(llm: World) -> None:
    def own(obj: dict[str, Any]) -> dict[str, Any]:
        obj["metadata"]["ownerReferences"] = [{"kind": "InferenceService", "name": "m", "uid": "u", "controller": True}]
        return obj

    llm.api.store.update(DEPLOYMENT, "facts", "llm", own, "kserve")
    assert "stands down: it belongs to InferenceService m" in lever(llm).read(target()).note
    with pytest.raises(NotOwner, match="InferenceService m"):
        lever(llm).apply(target(), UP, key="k")


def test_a_persons_edit_in_the_middle_of_a_rollout_is_seen_and_stands(llm: World) -> None:
    """The rollout goes on to its end, but what it brings is the person's value."""

    def person() -> None:
        if not edited and llm.slept[-1] > 1:  # it watches the rollout now
            edited.append(True)
            env = [{"name": "MAX_NUM_SEQS", "value": "32"}]
            edit(llm, DEPLOYMENT, "llm", template={**template, "spec": {"containers": [{**CONTAINER, "env": env}]}})

    edited: list[bool] = []
    template = llm.deployment("llm")["spec"]["template"]
    llm.api.cluster.start_s = 0.3
    llm.on_sleep = person
    with pytest.raises(NotOwner, match="set to 32 by somebody else while 128 rolled out"):
        lever(llm).apply(target(), UP, key="k")
    assert edited
    assert lever(llm).read(target()).values == {"batch_size": 32}


def test_pods_that_do_not_run_what_the_template_says_undo_it(llm: World) -> None:
    """A webhook, for one, writes its own value into every pod."""
    create = llm.api.store.create

    def webhook(resource: Any, namespace: str, obj: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        if resource == POD and obj["spec"]["containers"][0]["env"][-1]["value"] == "128":
            env = [{"name": "MAX_NUM_SEQS", "value": "16"}]
            obj = {**obj, "spec": {"containers": [{**obj["spec"]["containers"][0], "env": env}]}}
        return create(resource, namespace, obj, *args, **kwargs)

    llm.api.store.create = webhook  # type: ignore[method-assign]
    with pytest.raises(NotApplied, match=r"runs with 16, not with 128.*batch size 64 is back and ready"):
        lever(llm).apply(target(), UP, key="k")
    assert lever(llm).read(target()).values == {"batch_size": 64}


@pytest.mark.parametrize("code", [403, 404, 503])
def test_a_refusal_after_the_patch_is_no_refusal(llm: World, code: int) -> None:
    original, done = llm.api.api.answer, []

    def spy(request: Any) -> Any:
        answer = original(request)
        if request.method == "PATCH" and not done:
            done.append(True)
            llm.api.fail_next(methods=("GET",), times=4, code=code)
        return answer

    llm.api.api.answer = spy  # type: ignore[method-assign]
    assert lever(llm).apply(target(), UP, key="k").changed


TWO = {"env": "", "arg": "--max-num-seqs", "tokens_arg": "--max-num-batched-tokens", "knob": "max_num_seqs"}
BOTH_UP = Change(
    lever="batch_size",
    old={"max_num_seqs": 64, "max_num_batched_tokens": 2048},
    new={"max_num_seqs": 24, "max_num_batched_tokens": 1024},
)


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        (
            {"args": ["--max-num-seqs=64", "--max-num-batched-tokens", "2048", "--block-size", "16", "--max-model-len=4096"]},
            {"args": ["--max-num-seqs=24", "--max-num-batched-tokens", "1024", "--block-size", "16", "--max-model-len=4096"]},
        ),
        (
            {"args": ["sh", "-c", "vllm serve m --max-num-seqs 64 --max-num-batched-tokens 2048"]},
            {"args": ["sh", "-c", "vllm serve m --max-num-seqs 24 --max-num-batched-tokens 1024"]},
        ),
    ],
)  # fmt: skip
def test_two_knobs_of_an_engine_are_one_rollout(world: World, spec: dict[str, Any], shown: dict[str, Any]) -> None:
    container = {"name": "vllm", "image": "vllm:1", **spec}
    world.api.add_deployment("facts", "llm", 1, spec={"containers": [container]})
    world.steady("llm")
    before = lever(world).read(target(**TWO))
    assert before.values == {"max_num_seqs": 64, "max_num_batched_tokens": 2048}
    assert lever(world).apply(target(**TWO), BOTH_UP, key="k").after == dict(BOTH_UP.new)
    assert world.deployment("llm")["spec"]["template"]["spec"]["containers"][0] == {**container, **shown}
    assert lever(world).apply(target(**TWO), BOTH_UP.inverse(), key="k2").changed
    assert lever(world).read(target(**TWO)).values == before.values


def test_what_an_engine_holds_is_read_beside_the_knobs(world: World) -> None:
    args = ["--max-num-seqs=64", "--block-size", "16", "--num-gpu-blocks-override=96", "--max-model-len=4096"]
    world.api.add_deployment("facts", "llm", 1, spec={"containers": [{"name": "vllm", "image": "v", "args": args}]})
    world.steady("llm")
    found = lever(world).read(target(env="", arg="--max-num-seqs", knob="max_num_seqs"))
    assert found.facts == {"block_size": 16, "max_model_len": 4096, "kv_cache_tokens": 1536}
    assert found.values == {"max_num_seqs": 64}


def test_somebody_elses_value_of_one_knob_stands(world: World) -> None:
    args = ["--max-num-seqs=64", "--max-num-batched-tokens=4096"]
    world.api.add_deployment("facts", "llm", 1, spec={"containers": [{"name": "vllm", "image": "v", "args": args}]})
    world.steady("llm")
    with pytest.raises(NotOwner, match="max_num_seqs 64, max_num_batched_tokens 4096, neither"):
        lever(world).apply(target(**TWO), BOTH_UP, key="k")


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
    with pytest.raises(ConfigError, match=r"kind is not usable: .*'Deployment' or 'StatefulSet'"):
        lever(llm).read(target(kind="Job"))
