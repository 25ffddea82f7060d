"""The replica lever on the Kubernetes-shaped API server: owners, conflicts, errors, capacity."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import pytest

from demo.kubernetes_api.resources import DEPLOYMENT, HPA, POD, SCALED_OBJECT
from demo.kubernetes_api.server import KubernetesApi
from tests.fakes.actuators import FakeConnections, serving
from tests.fakes.kubernetes import World, bounds, eventually
from tuning.actuators._options import bounded
from tuning.actuators.kubernetes import KubernetesReplicas
from tuning.errors import (
    ConfigError,
    Conflict,
    ControlRefused,
    ControlUnreachable,
    NoCapacity,
    NotApplied,
    NotOwner,
    OutcomeUnknown,
    StillStarting,
)
from tuning.model import Change
from tuning.ports import Connection

pytestmark = pytest.mark.server
UP = bounds((2, 10), (4, 10))


def replicas(old: int, new: int) -> Change:
    return Change(lever="replicas", old={"replicas": old}, new={"replicas": new})


class TestHpa:
    def test_raises_the_floor_and_the_pods_follow(self, world: World) -> None:
        lever, web = world.lever(), world.service()
        assert lever.read(web).values == {"min_replicas": 2, "max_replicas": 10, "replicas": 2}
        receipt = lever.apply(web, UP, key="plan-1:replicas")
        assert (receipt.plan_id, receipt.changed, receipt.before["min_replicas"]) == ("plan-1", True, 2)
        assert receipt.after == {"min_replicas": 4, "max_replicas": 10}
        assert world.bounds() == (4, 10)
        eventually(lambda: world.replicas() == 4)
        again = lever.apply(web, UP, key="plan-1:replicas")
        assert (again.changed, again.id) == (False, receipt.id)

    def test_the_inverse_restores(self, world: World) -> None:
        lever, web = world.lever(), world.service()
        lever.apply(web, UP, key="k")
        world.steady()
        lever.apply(web, UP.inverse(), key="k2")
        assert world.bounds() == (2, 10)

    def test_the_deployment_itself_is_never_written(self, world: World) -> None:
        world.lever().apply(world.service(), UP, key="k")
        assert "slotune" not in {m["manager"] for m in world.deployment()["metadata"]["managedFields"]}
        assert "slotune" in {m["manager"] for m in world.hpa()["metadata"]["managedFields"]}

    def test_a_named_hpa_needs_no_list_and_must_fit(self, world: World) -> None:
        world.api.add_deployment("facts", "other", 1)
        world.api.add_hpa("facts", "other", "other", 1, 3)
        assert world.lever().read(world.service(hpa="web")).values["min_replicas"] == 2
        with pytest.raises(ConfigError, match="scales Deployment other, not web"):
            world.lever().read(world.service(hpa="other"))

    def test_two_hpas_on_one_workload_are_ambiguous(self, world: World) -> None:
        world.api.add_hpa("facts", "web2", "web", 1, 5)
        with pytest.raises(NotOwner, match="2 HPAs scale web"):
            world.lever().read(world.service())

    def test_the_replicas_knob_is_read_only_here(self, world: World) -> None:
        change = Change(
            lever="replicas",
            old={"min_replicas": 2, "max_replicas": 10, "replicas": 7},
            new={"min_replicas": 3, "max_replicas": 10, "replicas": 7},
        )
        world.lever().apply(world.service(), change, key="k")
        assert world.bounds() == (3, 10)
        with pytest.raises(ConfigError, match="plan again"):
            world.lever().apply(world.service(), replicas(2, 4), key="k")

    def test_beyond_the_users_bounds_nothing_is_sent(self, world: World) -> None:
        with pytest.raises(ConfigError, match="maximum of 10"):
            world.lever().apply(world.service(), bounds((2, 10), (4, 12)), key="k")
        assert world.bounds() == (2, 10)

    def test_nothing_is_patched_without_the_lock(self, world: World) -> None:
        """Whatever the owner: resource version, field manager and strict validation on every write."""
        seen: list[Any] = []
        original = world.api.api.answer

        def spy(request: Any) -> Any:
            if request.method not in ("GET", "POST"):
                seen.append(request)
            return original(request)

        world.api.api.answer = spy  # type: ignore[method-assign]
        world.api.add_deployment("facts", "free", 1)
        world.api.add_deployment("facts", "queue", 2)
        world.api.add_scaled_object("facts", "queue", "queue", 2, 8, sync_s=0.05)
        eventually(lambda: world.api.store.find(HPA, "facts", "keda-hpa-queue") is not None)
        world.steady("free")
        world.steady("queue")
        world.lever().apply(world.service(), UP, key="k")
        world.lever().apply(world.service(target="queue"), bounds((2, 8), (3, 8)), key="k")
        world.lever().apply(world.service(target="free"), replicas(1, 2), key="k")
        assert [request.path.rpartition("facts/")[2] for request in seen] == [
            "horizontalpodautoscalers/web",
            "scaledobjects/queue",
            "deployments/free/scale",
        ]
        for request in seen:
            assert request.method == "PATCH"
            assert json.loads(request.body)["metadata"]["resourceVersion"]
            assert request.query == {"fieldManager": "slotune", "fieldValidation": "Strict"}


class TestOtherOwners:
    def test_nobody_means_the_scale_subresource(self, world: World) -> None:
        world.api.add_deployment("facts", "free", 1)
        world.steady("free")
        lever, free = world.lever(), world.service(target="free")
        setting = lever.read(free)
        assert setting.values == {"replicas": 1}
        lever.apply(free, replicas(1, 3), key="k")
        assert world.replicas("free") == 3

    def test_stateful_sets(self, world: World) -> None:
        world.api.add_stateful_set("facts", "db", 1)
        eventually(lambda: not world.lever().pods(world.service(target="db", kind="StatefulSet")).waiting)
        world.lever().apply(world.service(target="db", kind="StatefulSet"), replicas(1, 2), key="k")
        assert world.lever().read(world.service(target="db", kind="StatefulSet")).values == {"replicas": 2}

    def test_a_scalable_custom_resource(self, world: World) -> None:
        kind = world.api.add_scalable_kind("serving.example.com", "v1", "inferenceservers", "InferenceServer")
        world.api.add_deployment("facts", "llm", 1, kind=kind)
        llm = world.service(target="llm", kind="serving.example.com/v1/inferenceservers")
        eventually(lambda: not world.lever().pods(llm).waiting)
        world.lever().apply(llm, replicas(1, 2), key="k")
        assert world.api.store.get(kind, "facts", "llm")["spec"]["replicas"] == 2
        world.api.add_hpa("facts", "llm", "llm", 2, 5, kind=kind)
        assert world.lever().read(llm).values == {"min_replicas": 2, "max_replicas": 5, "replicas": 2}

    def test_an_unknown_kind_says_how_to_write_it(self, world: World) -> None:
        with pytest.raises(ConfigError, match="group/version/plural"):
            world.lever().read(world.service(kind="Rollout"))

    def test_keda_owns_its_hpa(self, world: World) -> None:
        world.api.add_deployment("facts", "queue", 2)
        world.api.add_scaled_object("facts", "queue", "queue", 2, 8, sync_s=0.05)
        eventually(lambda: world.api.store.find(HPA, "facts", "keda-hpa-queue") is not None)
        world.steady("queue")
        lever, queue = world.lever(), world.service(target="queue")
        assert lever.read(queue).values == {"min_replicas": 2, "max_replicas": 8, "replicas": 2}
        lever.apply(queue, bounds((2, 8), (4, 8)), key="k")
        assert world.api.store.get(SCALED_OBJECT, "facts", "queue")["spec"]["minReplicaCount"] == 4
        eventually(lambda: world.hpa("keda-hpa-queue")["spec"]["minReplicas"] == 4)
        eventually(lambda: world.replicas("queue") == 4)

    def test_keda_defaults_count(self, world: World) -> None:
        world.api.add_deployment("facts", "queue", 1)
        world.api.add_scaled_object("facts", "queue", "queue", sync_s=0.05)
        setting = world.lever().read(world.service(target="queue"))
        assert (setting.values["min_replicas"], setting.values["max_replicas"]) == (0, 100)

    @pytest.mark.parametrize(
        "note", [{"autoscaling.keda.sh/paused": "true"}, {"autoscaling.keda.sh/paused-replicas": "2"}]
    )
    def test_a_paused_scaled_object_is_left_alone(self, world: World, note: dict[str, str]) -> None:
        world.api.add_deployment("facts", "queue", 2)
        world.api.add_scaled_object("facts", "queue", "queue", 2, 8, annotations=note)
        queue = world.service(target="queue")
        assert "paused" in world.lever().read(queue).note
        with pytest.raises(NotOwner, match="paused by an annotation"):
            world.lever().apply(queue, bounds((2, 8), (4, 8)), key="k")


class TestStandDown:
    @pytest.mark.parametrize(
        ("labels", "annotations", "tool"),
        [
            ({"argocd.argoproj.io/instance": "shop"}, {}, "Argo CD"),
            ({}, {"argocd.argoproj.io/tracking-id": "shop:autoscaling/HPA:facts/web"}, "Argo CD"),
            ({"kustomize.toolkit.fluxcd.io/name": "shop"}, {}, "Flux"),
            ({"helm.toolkit.fluxcd.io/name": "shop"}, {}, "Flux"),
        ],
    )
    def test_gitops_labels(self, world: World, labels: dict[str, str], annotations: dict[str, str], tool: str) -> None:
        world.api.add_deployment("facts", "shop", 1)
        world.api.add_hpa("facts", "shop", "shop", 1, 5, labels=labels, annotations=annotations)
        shop = world.service(target="shop")
        assert tool in world.lever().read(shop).note
        with pytest.raises(NotOwner, match=tool):
            world.lever().apply(shop, bounds((1, 5), (2, 5)), key="k")
        assert world.hpa("shop")["spec"]["minReplicas"] == 1

    def test_gitops_whose_manifest_leaves_the_bounds_alone(self, world: World) -> None:
        manifest = json.dumps({"spec": {"scaleTargetRef": {"name": "shop"}}})
        world.api.add_deployment("facts", "shop", 1)
        world.api.add_hpa(
            "facts", "shop", "shop", 1, 5, labels={"argocd.argoproj.io/instance": "shop"},
            annotations={"kubectl.kubernetes.io/last-applied-configuration": manifest},
        )  # fmt: skip
        world.steady("shop")
        world.lever().apply(world.service(target="shop"), bounds((1, 5), (2, 5)), key="k")
        assert world.hpa("shop")["spec"]["minReplicas"] == 2

    def test_a_switched_off_flux_object_is_free(self, world: World) -> None:
        world.api.add_deployment("facts", "shop", 1)
        world.api.add_hpa(
            "facts", "shop", "shop", 1, 5, labels={"kustomize.toolkit.fluxcd.io/name": "shop"},
            annotations={"kustomize.toolkit.fluxcd.io/reconcile": "disabled"},
        )  # fmt: skip
        assert "stands down" not in world.lever().read(world.service(target="shop")).note

    def test_an_apply_manager_of_the_field(self, world: World) -> None:
        body = {"metadata": {"name": "web"}, "spec": {"minReplicas": 2}}
        world.api.store.apply(HPA, "facts", "web", body, "deployer")
        with pytest.raises(NotOwner, match=r"deployer applies spec.minReplicas"):
            world.lever().apply(world.service(), UP, key="k")
        assert world.bounds() == (2, 10)

    def test_a_change_between_plan_and_patch(self, world: World) -> None:
        world.edit_hpa("kubectl-edit", minReplicas=3)
        with pytest.raises(NotOwner, match="shows max_replicas 10, min_replicas 3"):
            world.lever().apply(world.service(), UP, key="k")
        assert world.bounds() == (3, 10)

    def test_a_change_between_read_and_patch(self, world: World) -> None:
        """The stale resource version conflicts, the re-read shows another value: a person was faster."""
        lever = world.lever()
        world.api.fail_next(methods=("PATCH",), delay_s=0.15)
        timer = threading.Timer(0.05, world.edit_hpa, ["kubectl-edit"], {"minReplicas": 7})
        timer.start()
        with pytest.raises(NotOwner, match="somebody else changed it"):
            lever.apply(world.service(), UP, key="k")
        assert world.bounds() == (7, 10)

    def test_a_person_after_slotune_is_seen_at_the_next_sweep_and_left_alone_for_a_while(self, world: World) -> None:
        lever, web = world.lever(), world.service()
        lever.apply(web, UP, key="k")
        world.edit_hpa("kubectl-edit", minReplicas=6)
        assert "kubectl-edit changed HPA web after slotune did" in lever.read(web).note
        with pytest.raises(NotOwner, match="kubectl-edit changed"):
            lever.apply(web, bounds((6, 10), (8, 10)), key="k2")
        world.ahead_s += 3700
        assert "stands down" not in lever.read(web).note
        world.steady()
        lever.apply(web, bounds((6, 10), (8, 10)), key="k2")
        assert world.bounds() == (8, 10)


def owned_by(world: World, kind: Any, name: str, ref: dict[str, Any]) -> None:
    """An owner reference, as the controller that made the object puts it there."""

    def change(obj: dict[str, Any]) -> dict[str, Any]:
        obj["metadata"]["ownerReferences"] = [{"uid": "u-1", "apiVersion": "x/v1", **ref}]
        return obj

    world.api.store.update(kind, "facts", name, change, "manager")


class TestControllersAbove:
    @pytest.mark.parametrize(
        ("kind", "name"),
        [("InferenceService", "llm"), ("Canary", "web"), ("HTTPScaledObject", "web"), ("AnyOperatorsOwn", "x")],
    )
    def test_an_hpa_that_a_controller_made(self, world: World, kind: str, name: str) -> None:
        owned_by(world, HPA, "web", {"kind": kind, "name": name, "controller": True})
        said = rf"HPA web belongs to {kind} {name} \(ownerReferences\)"
        assert "stands down: HPA web belongs to" in world.lever().read(world.service()).note
        with pytest.raises(NotOwner, match=said):
            world.lever().apply(world.service(), UP, key="k")
        assert world.bounds() == (2, 10)

    def test_a_reference_that_is_no_controllers_is_only_about_garbage(self, world: World) -> None:
        owned_by(world, HPA, "web", {"kind": "ConfigMap", "name": "x"})
        assert world.lever().apply(world.service(), UP, key="k").changed

    def test_a_workload_and_a_scaled_object_too(self, world: World) -> None:
        world.api.add_deployment("facts", "free", 1)
        world.api.add_deployment("facts", "queue", 2)
        world.api.add_scaled_object("facts", "queue", "queue", 2, 8, sync_s=0.05)
        eventually(lambda: world.api.store.find(HPA, "facts", "keda-hpa-queue") is not None)
        owned_by(world, DEPLOYMENT, "free", {"kind": "InferenceService", "name": "llm", "controller": True})
        owned_by(world, SCALED_OBJECT, "queue", {"kind": "HTTPScaledObject", "name": "q", "controller": True})
        with pytest.raises(NotOwner, match="deployments/scale free belongs to InferenceService llm"):
            world.lever().apply(world.service(target="free"), replicas(1, 2), key="k")
        with pytest.raises(NotOwner, match="ScaledObject queue belongs to HTTPScaledObject q"):
            world.lever().apply(world.service(target="queue"), bounds((2, 8), (3, 8)), key="k")

    def test_a_deployment_that_an_argo_rollout_runs(self, world: World) -> None:
        notes = {"rollout.argoproj.io/workload-generation": "1"}
        world.api.add_deployment("facts", "free", 1, annotations=notes)
        with pytest.raises(NotOwner, match="an Argo Rollout runs"):
            world.lever().apply(world.service(target="free"), replicas(1, 2), key="k")


class TestFieldsThatMove:
    MAX_ONLY = {"metadata": {"name": "web"}, "spec": {"maxReplicas": 10}}

    def test_who_applies_maxreplicas_alone_does_not_forbid_minreplicas(self, world: World) -> None:
        world.api.store.apply(HPA, "facts", "web", self.MAX_ONLY, "kustomize-controller")
        note = world.lever().read(world.service()).note
        assert "stands down" not in note
        assert "leaves max_replicas alone: kustomize-controller applies spec.maxReplicas of HPA web" in note
        assert world.lever().apply(world.service(), UP, key="k").changed
        holders = [m["manager"] for m in world.hpa()["metadata"]["managedFields"]
                   if "f:maxReplicas" in m["fieldsV1"].get("f:spec", {})]  # fmt: skip
        assert "slotune" not in holders

    def test_but_its_own_field_is_left_alone_and_named(self, world: World) -> None:
        world.api.store.apply(HPA, "facts", "web", self.MAX_ONLY, "kustomize-controller")
        with pytest.raises(NotOwner, match=r"kustomize-controller applies spec\.maxReplicas of HPA web \("):
            world.lever().apply(world.service(), bounds((2, 10), (4, 9)), key="k")
        assert world.bounds() == (2, 10)

    @pytest.mark.parametrize(
        ("manifest", "moves"), [({"maxReplicas": 5}, True), ({"maxReplicas": 5, "minReplicas": 1}, False)]
    )
    def test_a_manifest_is_asked_about_the_field_that_moves(
        self, world: World, manifest: dict[str, int], moves: bool
    ) -> None:
        world.api.add_deployment("facts", "shop", 1)
        notes = {"kubectl.kubernetes.io/last-applied-configuration": json.dumps({"spec": manifest})}
        labels = {"argocd.argoproj.io/instance": "shop"}
        world.api.add_hpa("facts", "shop", "shop", 1, 5, labels=labels, annotations=notes)
        world.steady("shop")
        shop = world.service(target="shop")
        if moves:
            assert world.lever().apply(shop, bounds((1, 5), (2, 5)), key="k").changed
        else:
            with pytest.raises(NotOwner, match=r"Argo CD .*its manifest sets spec\.minReplicas"):
                world.lever().apply(shop, bounds((1, 5), (2, 5)), key="k")

    def test_a_ceiling_that_somebody_moved_does_not_stop_the_floor(self, world: World) -> None:
        world.edit_hpa("kubectl-edit", maxReplicas=12)
        receipt = world.lever().apply(world.service(), UP, key="k")
        assert (receipt.after, world.bounds()) == ({"min_replicas": 4, "max_replicas": 12}, (4, 12))

    @pytest.mark.parametrize("garbage", ["[" * 5000, '{"min_replicas": 1e999}', "\ud800", "null", '["x"]'])
    def test_an_annotation_is_anybodys_to_write(self, world: World, garbage: str) -> None:
        def change(obj: dict[str, Any]) -> dict[str, Any]:
            obj["metadata"]["annotations"] = {
                "slotune/last-set": garbage, "kubectl.kubernetes.io/last-applied-configuration": garbage,
            }  # fmt: skip
            return obj

        world.api.store.update(HPA, "facts", "web", change, "eve")
        if garbage == "\ud800":
            with pytest.raises(ControlRefused, match="is not JSON"):
                world.lever().read(world.service())
        else:
            assert world.lever().apply(world.service(), UP, key="k").changed


class TestScaledByHand:
    @pytest.fixture
    def free(self, world: World) -> World:
        world.api.add_deployment("facts", "free", 1)
        world.steady("free")
        world.lever().apply(world.service(target="free"), replicas(1, 2), key="k")
        world.steady("free")
        return world

    @pytest.mark.parametrize(("manager", "sub"), [("kubectl", "scale"), ("kubectl-edit", "")])
    def test_a_persons_number_stands_for_a_while(self, free: World, manager: str, sub: str) -> None:
        def change(obj: dict[str, Any]) -> dict[str, Any]:
            obj["spec"]["replicas"] = 5
            return obj

        free.api.store.update(DEPLOYMENT, "facts", "free", change, manager, sub=sub)
        free.steady("free")
        lever, service = free.lever(), free.service(target="free")
        assert f"stands down: {manager} scaled free (replicas 5 now), and that stands" in lever.read(service).note
        for number in (4, 6):
            with pytest.raises(NotOwner, match=f"{manager} scaled free"):
                lever.apply(service, replicas(5, number), key="k2")
        assert free.replicas("free") == 5
        free.ahead_s += 3700
        assert lever.apply(service, replicas(5, 6), key="k2").changed

    def test_slotunes_own_number_and_a_deployers_manifest_do_not_hold_it_back(self, free: World) -> None:
        assert "stands down" not in free.lever().read(free.service(target="free")).note
        assert free.lever().apply(free.service(target="free"), replicas(2, 3), key="k2").changed


class TestConflicts:
    def test_a_status_update_in_between_is_no_reason_to_give_up(self, world: World) -> None:
        world.api.fail_next(methods=("PATCH",), times=3, code=409)
        assert world.lever().apply(world.service(), UP, key="k").changed

    def test_an_object_that_never_holds_still(self, world: World) -> None:
        world.api.fail_next(methods=("PATCH",), times=99, code=409)
        with pytest.raises(Conflict, match="6 tries"):
            world.lever().apply(world.service(), UP, key="k")
        assert world.bounds() == (2, 10)

    def test_the_race_with_the_controller_loses_no_update(self) -> None:
        """200 patches while the HPA controller acts every 0.05 s and another writer annotates every 20 ms."""
        with KubernetesApi(tick_s=0.01) as api:
            conflicts = _count_conflicts(api)
            api.add_namespace("facts")
            api.add_deployment("facts", "web", 2)
            api.add_hpa("facts", "web", "web", 2, 40, sync_s=0.05, metric=lambda n: max(2, (n * 7) % 13))
            world = World(api)
            lever, web = world.lever(), world.service(unschedulable_after_s=0.001, request_timeout_s=5.0)
            web.levers["replicas"] = web.levers["replicas"].model_copy(update={"maximum": 40})
            stop = threading.Event()
            noise = threading.Thread(target=_annotate_until, args=(api, stop), daemon=True)
            noise.start()
            ledger, now = [], (2, 40)
            try:
                for n in range(200):
                    then = (2 + (n * 5) % 9, 40 - n % 3)
                    change = bounds(now, then)
                    receipt = _until_settled(lever, web, change, key=f"plan-{n}:replicas")
                    ledger.append(receipt.after)
                    assert world.bounds() == then, "a lost update"
                    now = then
            finally:
                stop.set()
                noise.join()
            assert len(ledger) == 200
            print(f"200 patches, {len(conflicts)} conflicts, 0 lost updates")
            assert len(conflicts) >= 10, "nobody raced"
            assert ledger[-1] == {"min_replicas": world.bounds()[0], "max_replicas": world.bounds()[1]}
            eventually(lambda: now[0] <= world.replicas() <= now[1])


def _count_conflicts(api: KubernetesApi) -> list[int]:
    """Grows by one with each 409 that the server answers."""
    seen: list[int] = []
    original = api.api.answer

    def spy(request: Any) -> Any:
        answer = original(request)
        if answer.code == 409:
            seen.append(answer.code)
        return answer

    api.api.answer = spy  # type: ignore[method-assign]
    return seen


def _annotate_until(api: KubernetesApi, stop: threading.Event) -> None:
    count = 0
    while not stop.wait(0.02):
        count += 1
        api.store.update(HPA, "facts", "web", lambda o, n=count: _noted(o, n), "somebody")


def _noted(obj: dict[str, Any], count: int) -> dict[str, Any]:
    obj["metadata"].setdefault("annotations", {})["count"] = str(count)
    return obj


def _until_settled(lever: KubernetesReplicas, web: Any, change: Change, key: str) -> Any:
    """As the loop does: pods that still start, and objects that move too fast, are tried again."""
    for _ in range(400):
        try:
            return lever.apply(web, change, key=key)
        except (StillStarting, Conflict):
            time.sleep(0.005)
    raise AssertionError("never settled")


class TestErrors:
    def test_403_names_the_right_and_the_rule(self, world: World) -> None:
        world.api.add_token("t", "system:serviceaccount:facts:slotune")
        with pytest.raises(ControlRefused) as error:
            world.lever("t").apply(world.service(hpa="web"), UP, key="k")
        said = str(error.value)
        assert "may not get horizontalpodautoscalers facts/web" in said
        assert '{apiGroups: ["autoscaling"], resources: ["horizontalpodautoscalers"], resourceNames: ["web"]' in said

    def test_404_names_namespace_and_object(self, world: World) -> None:
        with pytest.raises(ControlRefused, match=r"facts/nope does not exist"):
            world.lever().read(world.service(target="nope"))

    def test_422_passes_the_fields_words_on(self, world: World) -> None:
        with pytest.raises(ControlRefused, match=r"spec.maxReplicas: Invalid value: 3: must be greater than or equal"):
            world.lever().apply(world.service(), bounds((2, 10), (4, 3)), key="k")
        assert world.bounds() == (2, 10)

    def test_422_of_a_policy(self, world: World) -> None:
        world.api.add_policy("cap", HPA, lambda o: "capped at 3" if o["spec"]["minReplicas"] > 3 else None)
        with pytest.raises(ControlRefused, match="capped at 3"):
            world.lever().apply(world.service(), UP, key="k")

    def test_409_of_server_side_apply_is_an_owner(self, world: World) -> None:
        cause = {"reason": "FieldManagerConflict", "message": 'conflict with "x"', "field": ".spec.minReplicas"}
        body = {"message": "Apply failed with 1 conflict", "reason": "Conflict", "details": {"causes": [cause]}}

        def answer(handler: Any) -> None:
            scale = {"kind": "Scale", "spec": {"replicas": 2}, "status": {}}
            read = scale if handler.path.endswith("/scale") else world.hpa()
            data = json.dumps(body if handler.command == "PATCH" else read).encode()
            handler.send_response(409 if handler.command == "PATCH" else 200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        with serving(answer) as url:
            lever = KubernetesReplicas(FakeConnections({"cluster": url}), world.clock, world.sleep)
            with pytest.raises(NotOwner, match="another manager owns the field"):
                lever.apply(world.service(hpa="web"), UP.inverse().inverse(), key="k")

    def test_401_reloads_the_token_once(self, world: World) -> None:
        world.api.add_token("fresh", "admin", admin=True)
        web = world.service()
        connections = _RenewingConnections(world.api.url, ["stale", "fresh"])
        lever = KubernetesReplicas(connections, world.clock, world.sleep)
        assert lever.read(web).values["min_replicas"] == 2
        assert connections.handed_out == ["stale", "fresh"]
        with pytest.raises(ControlRefused, match="expired or of another cluster"):
            KubernetesReplicas(_RenewingConnections(world.api.url, ["stale", "stale"]), world.clock, world.sleep).read(
                web
            )

    @pytest.mark.parametrize("code", [410, 429, 500, 503, 504])
    def test_trouble_while_reading_may_be_tried_again(self, world: World, code: int) -> None:
        world.api.fail_next(methods=("GET",), code=code)
        with pytest.raises(ControlUnreachable):
            world.lever().read(world.service())

    def test_429_says_when_to_come_back(self, world: World) -> None:
        world.api.fail_next(methods=("GET",), code=429, retry_after_s=7)
        with pytest.raises(ControlUnreachable) as error:
            world.lever().read(world.service())
        assert error.value.delay_s == 7

    def test_nobody_listens(self, world: World) -> None:
        lever, web = world.lever(), world.service()
        world.api.stop()
        with pytest.raises(ControlUnreachable, match="cannot be reached"):
            lever.apply(web, UP, key="k")

    @pytest.mark.parametrize("fault", [{"code": 504}, {"code": 500}, {"drop": True}, {"delay_s": 0.7, "drop": True}])
    def test_a_write_without_an_answer_that_landed(self, world: World, fault: dict[str, Any]) -> None:
        world.api.fail_next(methods=("PATCH",), apply_after_s=0.0, **fault)
        receipt = world.lever().apply(world.service(), UP, key="k")
        assert (receipt.applied, world.bounds()) == (True, (4, 10))

    def test_a_write_without_an_answer_that_did_not_land_is_sent_again(self, world: World) -> None:
        world.api.fail_next(methods=("PATCH",), drop=True)
        assert world.lever().apply(world.service(), UP, key="k").changed
        assert world.bounds() == (4, 10)

    def test_no_answer_ever_is_unknown(self, world: World) -> None:
        world.api.fail_next(methods=("PATCH",), times=99, drop=True)
        with pytest.raises(OutcomeUnknown, match="may still land"):
            world.lever().apply(world.service(), UP, key="k")

    def test_the_api_server_gone_in_the_middle_is_unknown(self, world: World) -> None:
        world.api.fail_next(methods=("PATCH",), drop=True)
        world.api.fail_next(methods=("GET",), times=2, path="nothing")
        lever, web = world.lever(), world.service(hpa="web")
        lever.read(web)
        world.on_sleep = None
        seen = {"patch": False}
        original = world.api.faults.next

        def after_the_patch(method: str, path: str) -> Any:
            if method == "PATCH":
                seen["patch"] = True
                world.api.fail_next(methods=("GET",), times=99, code=503)
            return original(method, path)

        world.api.faults.next = after_the_patch  # type: ignore[method-assign]
        with pytest.raises(OutcomeUnknown, match="no answer that counts"):
            lever.apply(web, UP, key="k")
        assert seen["patch"]

    @pytest.mark.parametrize("code", [403, 404, 500, 503, 504])
    def test_a_refusal_after_a_write_is_no_refusal(self, world: World, code: int) -> None:
        """A restarting API server: the patch landed, and the read-back is answered with 403 for a while."""
        lever, web = world.lever(), world.service(hpa="web")
        after_patch(world, lambda: world.api.fail_next(methods=("GET",), times=3, code=code))
        receipt = lever.apply(web, UP, key="k")
        assert (receipt.applied, receipt.changed, world.bounds()) == (True, True, (4, 10))

    def test_a_read_back_that_stays_away_is_unknown_and_never_refused(self, world: World) -> None:
        lever, web = world.lever(), world.service(hpa="web")
        after_patch(world, lambda: world.api.starting(9999, methods=("GET",)))
        with pytest.raises(OutcomeUnknown, match=r"was patched; the read-back got no answer that counts.*may not get"):
            lever.apply(web, UP, key="k")
        assert world.bounds() == (4, 10)
        assert sum(world.slept) >= 30

    def test_a_lost_write_that_is_refused_when_it_is_sent_again(self, world: World) -> None:
        """The first patch landed without an answer; the second meets a server that is just starting."""
        lever, web = world.lever(), world.service(hpa="web")
        world.api.fail_next(methods=("PATCH",), drop=True, apply_after_s=0.3)
        world.api.starting(1, methods=("PATCH",))
        assert lever.apply(web, UP, key="k").applied
        assert world.bounds() == (4, 10)

    def test_a_refusal_before_anything_was_sent_stays_one(self, world: World) -> None:
        world.api.starting(1, methods=("PATCH",))
        with pytest.raises(ControlRefused, match="may not patch horizontalpodautoscalers"):
            world.lever().apply(world.service(hpa="web"), UP, key="k")
        assert world.bounds() == (2, 10)

    @pytest.mark.parametrize(
        ("message", "said"),
        [
            ('pods "x" is forbidden: exceeded quota: gpu, requested: pods=1', "a ResourceQuota has no room for it"),
            ('pods "x" is forbidden: violates PodSecurity "restricted:latest": seccompProfile', "PodSecurity level refuses"),
            ('pods "x" is forbidden: maximum cpu usage per Container is 1, but limit is 2', "a LimitRange refuses it"),
            ('pods "x" is forbidden: error looking up service account ml/nope', "its service account does not exist"),
            ('admission webhook "v.example" denied the request: no', "an admission webhook refuses it"),
            ("something nobody has thought of", "not for want of a right"),
        ],
    )
    def test_a_403_that_is_not_about_rights_is_told_as_what_it_is(self, world: World, message: str, said: str) -> None:
        body = json.dumps({"kind": "Status", "message": message, "reason": "Forbidden", "code": 403}).encode()
        with serving(lambda handler: reply(handler, 403, body)) as url:
            lever = KubernetesReplicas(FakeConnections({"cluster": url}), world.clock, world.sleep)
            with pytest.raises(ControlRefused) as error:
                lever.read(world.service(hpa="web"))
        assert said in str(error.value) and bounded(message) in str(error.value)
        assert "needs the rule" not in str(error.value)

    @pytest.mark.parametrize("part", ["status line", "headers", "body"])
    def test_a_server_that_drips_is_left_at_the_deadline(self, world: World, part: str) -> None:
        with dripping(part) as url:
            lever = KubernetesReplicas(FakeConnections({"cluster": url}), world.clock, world.sleep)
            began_s = time.monotonic()
            with pytest.raises(ControlUnreachable, match=r"no whole answer within 0\.5 s"):
                lever.read(world.service(hpa="web"))
            assert time.monotonic() - began_s < 20  # it would drip for an hour

    def test_a_custom_resource_without_replicas_is_named(self, world: World) -> None:
        kind = world.api.add_scalable_kind("serving.example.com", "v1", "inferenceservers", "InferenceServer")
        world.api.store.create(kind, "facts", {"metadata": {"name": "llm"}, "spec": {}}, "kubectl-create")
        with pytest.raises(ControlRefused, match=r"sets no spec\.replicas, so its /scale fails"):
            world.lever().read(world.service(target="llm", kind="serving.example.com/v1/inferenceservers"))

    def test_accepted_without_being_applied(self, world: World) -> None:
        hpa = world.hpa()

        def answer(handler: Any) -> None:
            length = int(handler.headers.get("Content-Length") or 0)
            handler.rfile.read(length)
            scale = {"kind": "Scale", "spec": {"replicas": 2}, "status": {}}
            data = json.dumps(scale if handler.path.endswith("/scale") else hpa).encode()
            handler.send_response(200)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        with serving(answer) as url:
            lever = KubernetesReplicas(FakeConnections({"cluster": url}), world.clock, world.sleep)
            with pytest.raises(NotApplied, match=r"accepted min_replicas 4, but the read-back shows.*last written by kub"):
                lever.apply(world.service(hpa="web"), UP, key="k")

    @pytest.mark.parametrize("data", [b"<html>", b"[]", b"\xff\xfe\x00", b'{"spec": {"minReplicas": "x"}}', b""])
    @pytest.mark.parametrize("status", [200, 500])
    def test_garbage_is_named(self, world: World, data: bytes, status: int) -> None:
        def answer(handler: Any) -> None:
            handler.send_response(status)
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        with serving(answer) as url:
            lever = KubernetesReplicas(FakeConnections({"cluster": url}), world.clock, world.sleep)
            with pytest.raises((ControlRefused, ControlUnreachable, ConfigError), match=r"\w+ \w+"):
                lever.read(world.service(hpa="web"))

    def test_a_connection_that_names_no_cluster(self, world: World) -> None:
        extra: dict[str, object] = {"kube_config_path": "/nonexistent/kubeconfig"}
        connections = FakeConnections({"cluster": Connection(name="cluster", url="", extra=extra)})
        with pytest.raises(ConfigError, match="connection cluster names no cluster"):
            KubernetesReplicas(connections, world.clock, world.sleep).read(world.service())

    def test_a_kubeconfig_works(self, world: World, tmp_path: Any) -> None:
        path = world.api.write_kubeconfig(tmp_path / "config")
        extra: dict[str, object] = {"kube_config_path": str(path)}
        connections = FakeConnections({"cluster": Connection(name="cluster", url="kubernetes://", extra=extra)})
        setting = KubernetesReplicas(connections, world.clock, world.sleep).read(world.service())
        assert setting.values["max_replicas"] == 10


def after_patch(world: World, then: Any) -> None:
    """Calls `then` once, when the first patch has been answered."""
    original, done = world.api.api.answer, []

    def spy(request: Any) -> Any:
        answer = original(request)
        if request.method == "PATCH" and not done:
            done.append(True)
            then()
        return answer

    world.api.api.answer = spy  # type: ignore[method-assign]


def reply(handler: Any, status: int, body: bytes) -> None:
    handler.send_response(status)
    handler.send_header("Content-Type", "application/json")
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body)


@contextmanager
def dripping(part: str) -> Iterator[str]:
    """A server that sends a byte every 50 ms, from this part of its answer on."""
    whole = b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 60_000 + b"\r\nContent-Length: 60000\r\n\r\n" + b" " * 60_000
    quick = {"status line": 0, "headers": 20, "body": 60_070}[part]
    server = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            sock, _ = server.accept()
            sock.recv(65536)
            sock.sendall(whole[:quick])
            for n in range(quick, len(whole)):
                sock.sendall(whole[n : n + 1])
                time.sleep(0.05)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
    finally:
        server.close()


class _RenewingConnections:
    """Hands out another token each time, as a secret store does after a rotation."""

    def __init__(self, url: str, tokens: list[str]) -> None:
        self.url, self.tokens = url, list(tokens)
        self.handed_out: list[str] = []

    def get(self, name: str) -> Connection:
        self.handed_out.append(self.tokens.pop(0))
        return Connection(name=name, url=self.url, password=self.handed_out[-1])


class TestCapacity:
    def test_no_further_scale_up_while_pods_start(self, world: World) -> None:
        lever, web = world.lever(), world.service()
        world.api.cluster.start_s = 60
        lever.apply(web, UP, key="k")
        eventually(lambda: world.replicas() == 4)
        with pytest.raises(StillStarting, match="2 ready, 2 starting"):
            lever.apply(web, bounds((4, 10), (6, 10)), key="k2")
        lever.apply(web, bounds((4, 10), (3, 10)), key="k3")  # down is always possible
        assert world.bounds() == (3, 10)

    def test_a_scale_up_without_room_is_undone_at_its_deadline(self, world: World) -> None:
        world.api.limit_pods("facts", 3)
        with pytest.raises(NoCapacity, match=r"no capacity.*1 unschedulable \(0/1 nodes.*back at"):
            world.lever().apply(world.service(unschedulable_after_s=30), UP, key="k")
        assert world.bounds() == (2, 10)

    def test_room_that_comes_in_time_is_waited_for(self, world: World) -> None:
        world.api.limit_pods("facts", 3)

        def node_arrives() -> None:
            if len(world.slept) > 5:
                world.api.limit_pods("facts", None)

        world.on_sleep = node_arrives
        receipt = world.lever().apply(world.service(unschedulable_after_s=300), UP, key="k")
        assert "4 ready" in receipt.reason or "starting" in receipt.reason
        assert world.bounds() == (4, 10)

    def test_a_controller_that_does_not_act_is_not_waited_for_forever(self) -> None:
        with KubernetesApi(tick_s=0.01) as api:
            api.add_namespace("facts")
            api.add_deployment("facts", "web", 2)
            api.add_hpa("facts", "web", "web", 2, 10, sync_s=3600)
            world = World(api)
            world.steady()
            time.sleep(0.1)
            receipt = world.lever().apply(world.service(), UP, key="k")
            assert receipt.applied
            assert 20 <= sum(world.slept) < 60

    def test_pods_that_a_quota_lets_nobody_create_are_undone_in_the_controllers_words(self, world: World) -> None:
        world.api.add_quota("facts", "gpu", 2)
        with pytest.raises(NoCapacity, match=r"4 wanted, 2 exist: 2 ready; .*\(FailedCreate: .*exceeded quota: gpu.*back at"):
            world.lever().apply(world.service(unschedulable_after_s=30), UP, key="k")
        assert world.bounds() == (2, 10)
        note = world.lever().read(world.service()).note
        assert "4 wanted, 2 exist: 2 ready; no further pod can be created" in note
        with pytest.raises(NoCapacity, match="nothing was changed"):
            world.lever().apply(world.service(), UP, key="k2")

    def test_a_quota_that_grows_in_time_is_waited_for(self, world: World) -> None:
        world.api.add_quota("facts", "gpu", 2)
        world.on_sleep = lambda: world.api.add_quota("facts", "gpu", None) if len(world.slept) > 5 else None
        assert world.lever().apply(world.service(), UP, key="k").changed
        assert world.bounds() == (4, 10)

    def test_a_pod_that_no_scheduler_looks_at_has_found_no_place(self, world: World) -> None:
        world.api.cluster.schedule_s = 3600
        with pytest.raises(NoCapacity, match=r"2 ready, 2 not placed on a node yet.*back at"):
            world.lever().apply(world.service(unschedulable_after_s=30), UP, key="k")
        assert world.bounds() == (2, 10)

    @pytest.mark.parametrize("reason", ["ImagePullBackOff", "CreateContainerConfigError", "CrashLoopBackOff"])
    def test_containers_that_cannot_start_are_undone_with_the_reason(self, world: World, reason: str) -> None:
        old = {pod["metadata"]["name"] for pod in world.api.store.list(POD, "facts")}
        world.api.cluster.waits = lambda pod: None if pod["metadata"]["name"] in old else reason
        with pytest.raises(NoCapacity, match=rf"2 ready, 2 stuck \({reason}\).*back at"):
            world.lever().apply(world.service(unschedulable_after_s=30), UP, key="k")
        assert world.bounds() == (2, 10)

    def test_earlier_pods_that_will_never_come_are_no_reason_to_wait_for_ever(self, world: World) -> None:
        world.api.limit_pods("facts", 3)
        world.edit_hpa("hpa-owner", minReplicas=4)
        eventually(lambda: bool(world.lever().pods(world.service()).unschedulable))
        with pytest.raises(StillStarting):
            world.lever().apply(world.service(), bounds((4, 10), (5, 10)), key="k")
        world.ahead_s += 400
        with pytest.raises(NoCapacity, match=r"do not come.*1 unschedulable.*nothing was changed"):
            world.lever().apply(world.service(), bounds((4, 10), (5, 10)), key="k")

    def test_a_workload_at_zero_is_not_switched_on(self, world: World) -> None:
        world.api.add_deployment("facts", "off", 0)
        with pytest.raises(NotOwner, match=r"stands at 0 replicas \(somebody switched it off"):
            world.lever().apply(world.service(target="off"), replicas(0, 2), key="k")
        world.api.add_hpa("facts", "off", "off", 2, 10, sync_s=0.05)
        eventually(lambda: bool(world.hpa("off").get("status", {}).get("conditions")))
        off = world.service(target="off")
        assert "stands down: the workload of HPA off stands at 0 replicas" in world.lever().read(off).note
        with pytest.raises(NotOwner, match=r"ScalingDisabled: scaling is disabled since the replica count"):
            world.lever().apply(off, UP, key="k")
        assert world.hpa("off")["spec"]["minReplicas"] == 2

    @pytest.mark.parametrize(
        ("kind", "reason", "acts"),
        [
            ("ScalingActive", "AmbiguousSelector", False),
            ("AbleToScale", "FailedGetScale", False),
            ("ScalingActive", "FailedGetResourceMetric", True),
        ],
    )
    def test_an_hpa_that_does_nothing_says_so_itself(self, kind: str, reason: str, acts: bool) -> None:
        with KubernetesApi(tick_s=0.01) as api:
            api.add_namespace("facts")
            api.add_deployment("facts", "web", 2)
            api.add_hpa("facts", "web", "web", 2, 10, sync_s=3600)
            world = World(api)
            world.steady()
            eventually(lambda: bool(world.hpa()["status"].get("conditions")))
            said = {"type": kind, "status": "False", "reason": reason, "message": "pods by several HPAs: web, web2"}

            def change(obj: dict[str, Any]) -> dict[str, Any]:
                obj["status"]["conditions"] = [said]
                return obj

            api.store.update(HPA, "facts", "web", change, "kube-controller-manager", sub="status")
            if acts:
                assert world.lever().apply(world.service(), UP, key="k").changed
            else:
                with pytest.raises(NotOwner, match=rf"HPA web says {kind} False, {reason}: pods by several HPAs"):
                    world.lever().apply(world.service(), UP, key="k")

    def test_pods_that_only_carry_the_labels_are_not_counted(self, world: World) -> None:
        mine = world.api.store.list(POD, "facts")[0]
        foreign = {"metadata": {"name": "stray", "labels": mine["metadata"]["labels"]},
                   "spec": {}, "status": {"phase": "Pending", "conditions": []}}  # fmt: skip
        world.api.store.create(POD, "facts", foreign, "eve")
        assert world.lever().pods(world.service()).total == 2
        assert world.lever().apply(world.service(), UP, key="k").changed

    def test_pods_that_run_but_fail_their_probe_do_not_hold_back(self, world: World) -> None:
        world.api.cluster.healthy = lambda _: False
        eventually(lambda: world.ready() == 0)
        world.ahead_s += 400
        pods = world.lever().pods(world.service())
        assert (len(pods.unready), pods.waiting) == (2, 0)
        world.lever().apply(world.service(), UP, key="k")
        assert world.bounds() == (4, 10)


def test_times_in_managed_fields_are_read_as_utc(world: World) -> None:
    world.lever().apply(world.service(), UP, key="k")
    mine = next(m for m in world.hpa()["metadata"]["managedFields"] if m["manager"] == "slotune")
    assert abs(datetime.fromisoformat(mine["time"]).timestamp() - datetime.now(UTC).timestamp()) < 5


def test_deployment_is_read_for_its_managers_when_nobody_owns_the_replicas(world: World) -> None:
    world.api.add_deployment("facts", "shop", 1, labels={"argocd.argoproj.io/instance": "shop"})
    with pytest.raises(NotOwner, match="Argo CD"):
        world.lever().apply(world.service(target="shop"), replicas(1, 2), key="k")
    assert world.api.store.get(DEPLOYMENT, "facts", "shop")["spec"]["replicas"] == 1
