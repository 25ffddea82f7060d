"""kubernetes_patch: a field of any object, left alone where it is somebody else's, written under the object's version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from pydantic import ValidationError

from demo.kubernetes_api.resources import Resource
from demo.kubernetes_api.server import KubernetesApi
from tests.fakes.actuators import service
from tests.fakes.kubernetes import World
from tuning.actuators._kubernetes_fields import object_ref, reason_to_stand_down
from tuning.actuators.kubernetes_patch import KubernetesPatch
from tuning.actuators.settings.batch_size import KubernetesPatchOptions
from tuning.errors import ConfigError, ControlRefused, NotOwner
from tuning.model import Change

pytestmark = pytest.mark.server
KIND = "serving.example.org/v1beta1/inferenceservices"
UP = Change(
    lever="batch_size",
    old={"batch_size": 8, "batch_timeout_ms": 5.0},
    new={"batch_size": 16, "batch_timeout_ms": 2.5},
)


class Place:
    """A custom resource in the stand-in, and the lever on it."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.kind: Resource = world.api.add_scalable_kind(
            "serving.example.org", "v1beta1", "inferenceservices", "InferenceService"
        )
        predictor = {"containerConcurrency": "8", "batcher": {"maxLatency": 5000}, "containers": [{"name": "a", "n": 8}]}
        body = {"metadata": {"name": "iris"}, "spec": {"predictor": predictor, "other": 1}}
        world.api.store.create(self.kind, "facts", body, "kserve-user")
        self.lever = KubernetesPatch(world.connect(), world.clock, world.sleep)
        self.service = service(
            "batch_size",
            "kubernetes_patch",
            connection="cluster",
            namespace="facts",
            kind=KIND,
            target="iris",
            batch_size_at="/spec/predictor/containerConcurrency",
            batch_timeout_at="/spec/predictor/batcher/maxLatency",
            batch_timeout_unit="us",
            request_timeout_s=0.5,
        )

    @property
    def obj(self) -> dict[str, Any]:
        return self.world.api.store.get(self.kind, "facts", "iris")

    def edit(self, manager: str, **places: Any) -> None:
        def change(obj: dict[str, Any]) -> dict[str, Any]:
            for place, value in places.items():
                part, _, key = place.partition("__")
                obj[part][key] = value
            return obj

        self.world.api.store.update(self.kind, "facts", "iris", change, manager)


@pytest.fixture
def place() -> Iterator[Place]:
    with KubernetesApi(tick_s=0.01) as api:
        api.add_namespace("facts")
        yield Place(World(api))


def test_both_knobs_are_written_in_one_patch_in_the_kind_and_unit_that_stand_there(place):
    receipt = place.lever.apply(place.service, UP, key="p:l")
    predictor = place.obj["spec"]["predictor"]
    assert (predictor["containerConcurrency"], predictor["batcher"]["maxLatency"]) == ("16", 2500)
    assert place.obj["spec"]["other"] == 1 and receipt.after == {"batch_size": 16, "batch_timeout_ms": 2.5}
    held = [e for e in place.obj["metadata"]["managedFields"] if e["manager"] == "slotune"]
    assert [e["operation"] for e in held] == ["Update"], "a field is not taken from its owner for good"
    place.lever.apply(place.service, UP.inverse(), key="p:u")
    assert place.obj["spec"]["predictor"]["containerConcurrency"] == "8"


def test_what_else_moves_in_the_object_meanwhile_does_not_matter(place):
    real, moved = place.lever._field(place.service).cluster, []
    patch = real.patch

    def late(ref, body):
        if not moved:
            moved.append(1)
            place.edit("somebody", spec__other=2)
        return patch(ref, body)

    real.patch = late
    assert place.lever.apply(place.service, UP, key="p:l").changed and place.obj["spec"]["other"] == 2


def test_somebody_who_writes_the_field_between_look_and_patch_wins(place):
    real = place.lever._field(place.service).cluster
    patch = real.patch

    def late(ref, body):
        predictor = {**place.obj["spec"]["predictor"], "containerConcurrency": "12"}
        place.edit("ann", spec__predictor=predictor)
        real.patch = patch
        return patch(ref, body)

    real.patch = late
    with pytest.raises(NotOwner, match="changed by somebody else meanwhile"):
        place.lever.apply(place.service, UP, key="p:l")
    assert place.obj["spec"]["predictor"]["containerConcurrency"] == "12"


@pytest.mark.parametrize(
    ("meta", "why"),
    [
        ({"ownerReferences": [{"apiVersion": "x/v1", "kind": "Fleet", "name": "f", "uid": "1", "controller": True}]}, "belongs to Fleet f"),
        ({"labels": {"argocd.argoproj.io/instance": "prod"}}, "managed by Argo CD"),
        ({"labels": {"kustomize.toolkit.fluxcd.io/name": "prod"}}, "managed by Flux"),
    ],
)
def test_an_object_that_somebody_else_keeps_is_left_alone(place, meta, why):
    place.edit("somebody", **{f"metadata__{key}": value for key, value in meta.items()})
    with pytest.raises(NotOwner, match=why):
        place.lever.apply(place.service, UP, key="p:l")
    assert why in place.lever.read(place.service).note
    assert place.obj["spec"]["predictor"]["containerConcurrency"] == "8"


def entry(fields: dict[str, Any], operation: str = "Apply", manager: str = "team") -> dict[str, Any]:
    return {"manager": manager, "operation": operation, "fieldsV1": fields}


@pytest.mark.parametrize(
    ("meta", "taken"),
    [
        ({"managedFields": [entry({"f:spec": {"f:a": {"f:b": {}}}})]}, True),
        ({"managedFields": [entry({"f:spec": {"f:a": {"f:c": {}}}})]}, False),
        ({"managedFields": [entry({"f:spec": {"f:a": {}}})]}, True),
        ({"managedFields": [entry({"f:spec": {"f:a": {"f:b": {}}}}, "Update")]}, False),
        ({"managedFields": [entry({"f:spec": {"f:a": {"f:b": {}}}}, manager="slotune")]}, False),
        ({"managedFields": [entry({"f:spec": {"f:x": {}}})], "labels": {"argocd.argoproj.io/instance": "p"}}, True),
        (
            {
                "labels": {"argocd.argoproj.io/instance": "p"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": '{"spec": {"x": 1}}'},
            },
            False,
        ),
        (
            {
                "labels": {"argocd.argoproj.io/instance": "p"},
                "annotations": {"kubectl.kubernetes.io/last-applied-configuration": '{"spec": {"a": {"b": 1}}}'},
            },
            True,
        ),
    ],
)
def test_whose_a_field_is(meta, taken):
    assert bool(reason_to_stand_down({"metadata": meta}, [["spec", "a", "b"]])) is taken


def test_a_place_within_a_list_is_its_appliers():
    held = entry({"f:spec": {"f:containers": {'k:{"name":"a"}': {"f:n": {}}}}})
    steps = ["spec", "containers", "0", "n"]
    assert reason_to_stand_down({"metadata": {"managedFields": [held]}}, [steps])


@pytest.mark.parametrize(
    ("kind", "path"),
    [
        ("Deployment", "/apis/apps/v1/namespaces/n/deployments/x"),
        ("v1/configmaps", "/api/v1/namespaces/n/configmaps/x"),
        (KIND, "/apis/serving.example.org/v1beta1/namespaces/n/inferenceservices/x"),
    ],
)
def test_kinds(kind, path):
    assert object_ref("n", kind, "x").path == path


@pytest.mark.parametrize("kind", ["configmaps", "a/b/c/d", "a//c", "Pod"])
def test_a_kind_that_is_none(kind):
    with pytest.raises(ConfigError, match="kind must be"):
        object_ref("n", kind, "x")


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"batch_size_at": "spec/x"}, "begins with a slash"),
        ({"batch_size_at": ""}, "a field of what people wish"),
        ({"batch_size_at": "/metadata/labels/x"}, "a field of what people wish"),
        ({"batch_size_at": "/status/x"}, "a field of what people wish"),
        ({"batch_size_at": "/spec/replicas"}, "the lever replicas"),
        ({"kind": "Deployment", "batch_size_at": "/spec/template/spec/containers/0/env/0/value"}, "pod_spec"),
        ({"batch_timeout_at": "x"}, "begins with a slash"),
    ],
)
def test_a_place_that_is_not_for_this_lever(changes, why):
    given = {"connection": "c", "namespace": "n", "kind": KIND, "target": "x", "batch_size_at": "/spec/rows", **changes}
    with pytest.raises(ValidationError, match=why):
        KubernetesPatchOptions.model_validate(given)


def test_what_does_not_stand_there_or_is_no_number_is_a_sentence(place):
    for at, said in (("/spec/nothing", "nothing stands at /spec/nothing"), ("/spec/predictor", "shows no usable batch size")):
        lever = place.service.levers["batch_size"]
        options = {k: v for k, v in lever.options.items() if k != "batch_timeout_at"} | {"batch_size_at": at}
        broken = place.service.model_copy(update={"levers": {"batch_size": lever.model_copy(update={"options": options})}})
        with pytest.raises(ControlRefused, match=said):
            place.lever.read(broken)


def test_the_rights_are_those_of_one_object(place):
    said = [f"{verb} {ref.rule(verb)}" for verb, ref in place.lever.rights(place.service)]
    assert len(said) == 2 and all('resourceNames: ["iris"]' in rule for rule in said)
    assert place.lever.may(place.service, *place.lever.rights(place.service)[1])
