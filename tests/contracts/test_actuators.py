"""What every actuator promises, run over the registry: absolute values, read back, idempotent on key, honest errors.

The precision levers have suites of their own (tests/tuning/actuators/test_model_repository.py, test_triton_repository.py, test_real_triton.py):
their changes need a build.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from demo.kubernetes_api.resources import DEPLOYMENT, REPLICA_SET
from demo.kubernetes_api.server import KubernetesApi
from detection.model import Service
from tests.fakes.actuators import FakeConnections, FakeTime, config_endpoint, service
from tests.fakes.kubernetes import World, bounds, eventually
from tests.fakes.mlflow import mlflow
from tests.fakes.triton import triton
from tuning import actuators
from tuning.errors import ConfigError, ControlRefused, ControlUnreachable, NotOwner
from tuning.model import Change
from tuning.ports import Actuator

pytestmark = pytest.mark.server
OWN_SUITE = {"http_restart", "kubernetes_restart", "model_repository", "triton_repository"}


@dataclass
class Subject:
    """An actuator on a world of its own. truth: the main knob as the world has it. foreign: somebody else moves it.
    down: nobody answers any more. settle: the world has digested the last change."""

    actuator: Actuator
    service: Service
    change: Change
    truth: Callable[[], int | str]
    foreign: Callable[[], None]
    down: Callable[[], None]
    settle: Callable[[], None] = lambda: None


def _http_config(stack: ExitStack) -> Subject:
    endpoint = stack.enter_context(config_endpoint())
    time = FakeTime()
    connections = FakeConnections({"c": endpoint.url})
    return Subject(
        actuators.get("http_config")(connections, time.clock, time.sleep),
        service("batch_size", "http_config", connection="c", request_timeout_s=0.5),
        Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8}),
        lambda: int(endpoint.config["batch_size"]),
        lambda: endpoint.config.update(batch_size=5),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


def _http(stack: ExitStack) -> Subject:
    endpoint = stack.enter_context(config_endpoint())
    time = FakeTime()
    connections = FakeConnections({"c": endpoint.url})
    read = {"path": "/config", "batch_size_at": "/batch_size"}
    write = {"method": "POST", "path": "/config", "body": {"batch_size": "{batch_size}"}}
    return Subject(
        actuators.get("http")(connections, time.clock, time.sleep),
        service("batch_size", "http", connection="c", request_timeout_s=0.5, read=read, write=write),
        Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8}),
        lambda: int(endpoint.config["batch_size"]),
        lambda: endpoint.config.update(batch_size=5),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


def _http_release(stack: ExitStack) -> Subject:
    endpoint = stack.enter_context(config_endpoint({"model": "ranker", "served": {"version": "7"}}))
    time = FakeTime()
    connections = FakeConnections({"c": endpoint.url})
    read = {"path": "/config", "version_at": "/served/version"}
    write = {"path": "/config", "body": {"served": {"version": "{version}"}}}
    return Subject(
        actuators.get("http_release")(connections, time.clock, time.sleep),
        service("release", "http_release", connection="c", request_timeout_s=0.5, read=read, write=write),
        Change(lever="release", old={"version": "7"}, new={"version": "6"}),
        lambda: str(endpoint.config["served"]["version"]),
        lambda: endpoint.config.update(served={"version": "8"}),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


def _mlflow_release(stack: ExitStack) -> Subject:
    registry = stack.enter_context(mlflow())
    time = FakeTime()
    connections = FakeConnections({"c": registry.url})
    return Subject(
        actuators.get("mlflow_release")(connections, time.clock, time.sleep),
        service("release", "mlflow_release", connection="c", request_timeout_s=2.0),
        Change(lever="release", old={"version": "7"}, new={"version": "6"}),
        lambda: registry.aliases["champion"],
        lambda: registry.aliases.update(champion="8"),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


VARIANTS = {
    "quality_of": "accuracy on held-back rows",
    "variants": [{"name": "full", "value": "7", "quality": 0.92}, {"name": "small", "value": "6", "quality": 0.9}],
}


def _http_variant(stack: ExitStack) -> Subject:
    endpoint = stack.enter_context(config_endpoint({"model": "ranker", "served": {"version": "7"}}))
    time = FakeTime()
    connections = FakeConnections({"c": endpoint.url})
    calls = {
        "read": {"path": "/config", "variant_at": "/served/version"},
        "write": {"path": "/config", "body": {"served": {"version": "{variant}"}}},
    }
    names = {"7": "full", "6": "small"}
    return Subject(
        actuators.get("http_variant")(connections, time.clock, time.sleep),
        service("variant", "http_variant", connection="c", request_timeout_s=0.5, **calls, **VARIANTS),
        Change(lever="variant", old={"variant": "full"}, new={"variant": "small"}),
        lambda: names.get(endpoint.config["served"]["version"], "another"),
        lambda: endpoint.config.update(served={"version": "8"}),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


def _triton_variant(stack: ExitStack) -> Subject:
    stub = stack.enter_context(triton())
    stub.disk, stub.serving = {6, 7, 8}, {7}
    time = FakeTime()
    connections = FakeConnections({"c": stub.url})
    names = {7: "full", 6: "small"}
    return Subject(
        actuators.get("triton_variant")(connections, time.clock, time.sleep),
        service("variant", "triton_variant", connection="c", model="ranker", request_timeout_s=0.5, **VARIANTS),
        Change(lever="variant", old={"variant": "full"}, new={"variant": "small"}),
        lambda: names.get(max(stub.serving), "another"),
        lambda: stub.serving.add(8),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


def _http_admission(stack: ExitStack) -> Subject:
    endpoint = stack.enter_context(config_endpoint({"model": "ranker", "max_queue": 500}))
    time = FakeTime()
    connections = FakeConnections({"c": endpoint.url})
    calls = {
        "limits": "queue",
        "read": {"path": "/config", "limit_at": "/max_queue"},
        "write": {"path": "/config", "body": {"max_queue": "{limit}"}},
    }
    return Subject(
        actuators.get("http_admission")(connections, time.clock, time.sleep),
        service("admission", "http_admission", connection="c", request_timeout_s=0.5, **calls),
        Change(lever="admission", old={"queue_limit": 500}, new={"queue_limit": 20}),
        lambda: int(endpoint.config["max_queue"]),
        lambda: endpoint.config.update(max_queue=77),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


def _http_breaker(stack: ExitStack) -> Subject:
    endpoint = stack.enter_context(config_endpoint({"eu": "100", "us": "100"}))
    time = FakeTime()
    connections = FakeConnections({"c": endpoint.url})
    calls = {
        "states": {"closed": "100", "half_open": "5", "open": "off"},
        "routes": [{"name": name, "state_at": f"/{name}", "capacity": 50, "failed": "x"} for name in ("eu", "us")],
        "read": {"path": "/config"},
        "write": {"method": "POST", "path": "/config", "body": {"{route}": "{state}"}},
    }
    names = {"100": "closed", "5": "half_open", "off": "open"}
    return Subject(
        actuators.get("http_breaker")(connections, time.clock, time.sleep),
        service("breaker", "http_breaker", connection="c", request_timeout_s=0.5, **calls),
        Change(lever="breaker", old={"eu": "closed"}, new={"eu": "open"}),
        lambda: names.get(str(endpoint.config["eu"]), str(endpoint.config["eu"])),
        lambda: endpoint.config.update(eu="50"),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


def _triton_admission(stack: ExitStack) -> Subject:
    stub = stack.enter_context(triton())
    policy = {"max_queue_size": 500, "timeout_action": "REJECT"}
    stub.config["dynamic_batching"]["default_queue_policy"] = policy
    time = FakeTime()
    connections = FakeConnections({"c": stub.url})

    def now() -> dict[str, object]:
        found: dict[str, object] = stub.config["dynamic_batching"]["default_queue_policy"]
        assert found["timeout_action"] == "REJECT", "the rest of the policy stays"
        return found

    return Subject(
        actuators.get("triton_admission")(connections, time.clock, time.sleep),
        service("admission", "triton_admission", connection="c", model="ranker", request_timeout_s=0.5),
        Change(lever="admission", old={"queue_limit": 500}, new={"queue_limit": 20}),
        lambda: int(str(now()["max_queue_size"])),
        lambda: now().update(max_queue_size=77),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


def _kubernetes_release(stack: ExitStack) -> Subject:
    world = _world(stack)

    def image(name: str, by: str = "ci") -> str:
        """Releases an image, and gives the version that it has then."""

        def change(obj: dict[str, object]) -> dict[str, object]:
            obj["spec"]["template"]["spec"]["containers"][0]["image"] = name  # type: ignore[index]
            return obj

        world.api.store.update(DEPLOYMENT, "facts", "web", change, by)
        eventually(lambda: current().get("image") == name)
        return str(current()["version"])

    def current() -> dict[str, str]:
        wanted = world.deployment()["spec"]["template"]["spec"]["containers"][0]["image"]
        for one in world.api.store.list(REPLICA_SET, "facts"):
            if one["spec"]["template"]["spec"]["containers"][0]["image"] == wanted:
                return {"image": wanted, "version": one["metadata"]["labels"]["pod-template-hash"]}
        return {}

    eventually(lambda: bool(current()))
    old = current()["version"]
    new = image("x:2")
    world.steady()
    return Subject(
        actuators.get("kubernetes_release")(world.connect(), world.clock, world.sleep),
        service("release", "kubernetes_release", connection="cluster", namespace="facts", target="web"),
        Change(lever="release", old={"version": new}, new={"version": old}),
        lambda: current()["version"],
        lambda: image("x:3") and None,
        lambda: world.connections.known.update(cluster="http://127.0.0.1:9"),
        world.steady,
    )


def _triton_release(stack: ExitStack) -> Subject:
    stub = stack.enter_context(triton())
    stub.disk, stub.serving = {6, 7, 8}, {7}
    time = FakeTime()
    connections = FakeConnections({"c": stub.url})
    return Subject(
        actuators.get("triton_release")(connections, time.clock, time.sleep),
        service("release", "triton_release", connection="c", model="ranker", request_timeout_s=0.5),
        Change(lever="release", old={"version": "7"}, new={"version": "6"}),
        lambda: str(max(stub.serving)),
        lambda: stub.serving.add(8),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


TOOL = """
import json, os, pathlib, sys
file = pathlib.Path(os.environ["SLOTUNE_URL"].removeprefix("file://"))
if not file.exists():
    print("no such server", file=sys.stderr)
    sys.exit(75)
if sys.argv[1] == "set":
    if int(sys.argv[2]) < 1:
        sys.exit("a batch has at least one row")
    file.write_text(json.dumps({"batching": {"rows": sys.argv[2]}}))
print(file.read_text())
"""


def _command(stack: ExitStack) -> Subject:
    folder = Path(stack.enter_context(TemporaryDirectory()))
    file, tool = folder / "server.json", folder / "tool.py"
    tool.write_text(TOOL)
    time = FakeTime()

    def put(rows: int) -> None:
        file.write_text(json.dumps({"batching": {"rows": rows}}))

    def down() -> None:
        file.rename(folder / "gone.json")

    def truth() -> int:
        at = file if file.exists() else folder / "gone.json"
        return int(json.loads(at.read_text())["batching"]["rows"])

    put(1)
    words = [sys.executable, "-S", str(tool)]
    read = {"command": [*words, "show"], "batch_size_at": "/batching/rows"}
    write = {"command": [*words, "set", "{batch_size}"]}
    return Subject(
        actuators.get("command")(FakeConnections({"c": f"file://{file}"}), time.clock, time.sleep),
        service("batch_size", "command", connection="c", read=read, write=write),
        Change(lever="batch_size", old={"batch_size": 1}, new={"batch_size": 8}),
        truth,
        lambda: put(5),
        down,
    )


def _triton(stack: ExitStack) -> Subject:
    stub = stack.enter_context(triton())
    time = FakeTime()
    connections = FakeConnections({"c": stub.url})
    return Subject(
        actuators.get("triton")(connections, time.clock, time.sleep),
        service("batch_size", "triton", connection="c", model="ranker", request_timeout_s=0.5),
        Change(lever="batch_size", old={"batch_size": 4}, new={"batch_size": 8}),
        lambda: int(stub.config["max_batch_size"]),
        lambda: stub.config.update(max_batch_size=5),
        lambda: connections.known.update(c="http://127.0.0.1:9"),
    )


def _world(stack: ExitStack) -> World:
    api = stack.enter_context(KubernetesApi(tick_s=0.01))
    api.add_namespace("facts")
    pod = {"containers": [{"name": "server", "image": "x:1", "env": [{"name": "BATCH", "value": "8"}]}]}
    api.add_deployment("facts", "web", 2, spec=pod)
    api.add_hpa("facts", "web", "web", 2, 10, sync_s=0.05)
    world = World(api)
    world.steady()
    return world


def _kubernetes(stack: ExitStack) -> Subject:
    world = _world(stack)
    return Subject(
        actuators.get("kubernetes")(world.connect(), world.clock, world.sleep),
        world.service(),
        bounds((2, 10), (4, 10)),
        lambda: world.bounds()[0],
        lambda: world.edit_hpa("kubectl-edit", minReplicas=7),
        lambda: world.connections.known.update(cluster="http://127.0.0.1:9"),
        world.steady,
    )


def _pod_spec(stack: ExitStack) -> Subject:
    world = _world(stack)

    def env() -> dict[str, str]:
        return dict(world.deployment()["spec"]["template"]["spec"]["containers"][0]["env"][0])

    def foreign() -> None:
        def change(obj: dict[str, object]) -> dict[str, object]:
            obj["spec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = "5"  # type: ignore[index]
            return obj

        world.api.store.update(DEPLOYMENT, "facts", "web", change, "kubectl-edit")

    return Subject(
        actuators.get("pod_spec")(world.connect(), world.clock, world.sleep),
        service("batch_size", "pod_spec", connection="cluster", namespace="facts", target="web", env="BATCH"),
        Change(lever="batch_size", old={"batch_size": 8}, new={"batch_size": 16}),
        lambda: int(env()["value"]),
        foreign,
        lambda: world.connections.known.update(cluster="http://127.0.0.1:9"),
    )


def _kubernetes_patch(stack: ExitStack) -> Subject:
    world = _world(stack)
    batcher = world.api.add_scalable_kind("example.org", "v1", "batchers", "Batcher")
    world.api.store.create(
        batcher,
        "facts",
        {"apiVersion": "example.org/v1", "kind": "Batcher", "metadata": {"name": "b"}, "spec": {"model": {"rows": 8}}},
        "an-operator",
    )

    def foreign() -> None:
        def change(obj: dict[str, object]) -> dict[str, object]:
            obj["spec"]["model"]["rows"] = 5  # type: ignore[index]
            return obj

        world.api.store.update(batcher, "facts", "b", change, "kubectl-edit")

    place = {"kind": "example.org/v1/batchers", "target": "b", "batch_size_at": "/spec/model/rows"}
    return Subject(
        actuators.get("kubernetes_patch")(world.connect(), world.clock, world.sleep),
        service("batch_size", "kubernetes_patch", connection="cluster", namespace="facts", **place),
        Change(lever="batch_size", old={"batch_size": 8}, new={"batch_size": 16}),
        lambda: int(world.api.store.get(batcher, "facts", "b")["spec"]["model"]["rows"]),
        foreign,
        lambda: world.connections.known.update(cluster="http://127.0.0.1:9"),
    )


def _kubernetes_admission(stack: ExitStack) -> Subject:
    world = _world(stack)
    rules = world.api.add_scalable_kind("example.org", "v1", "policies", "Policy")
    spec = {"http": {"http1MaxPendingRequests": 500}}
    world.api.store.create(
        rules,
        "facts",
        {"apiVersion": "example.org/v1", "kind": "Policy", "metadata": {"name": "p"}, "spec": spec},
        "kubectl-create",
    )

    def foreign() -> None:
        def change(obj: dict[str, object]) -> dict[str, object]:
            obj["spec"]["http"]["http1MaxPendingRequests"] = 77  # type: ignore[index]
            return obj

        world.api.store.update(rules, "facts", "p", change, "kubectl-edit")

    place = {"kind": "example.org/v1/policies", "target": "p", "limit_at": "/spec/http/http1MaxPendingRequests"}
    return Subject(
        actuators.get("kubernetes_admission")(world.connect(), world.clock, world.sleep),
        service("admission", "kubernetes_admission", connection="cluster", namespace="facts", limits="queue", **place),
        Change(lever="admission", old={"queue_limit": 500}, new={"queue_limit": 20}),
        lambda: int(world.api.store.get(rules, "facts", "p")["spec"]["http"]["http1MaxPendingRequests"]),
        foreign,
        lambda: world.connections.known.update(cluster="http://127.0.0.1:9"),
    )


MAKERS: dict[str, Callable[[ExitStack], Subject]] = {
    "command": _command,
    "http": _http,
    "http_admission": _http_admission,
    "http_breaker": _http_breaker,
    "http_config": _http_config,
    "http_release": _http_release,
    "http_variant": _http_variant,
    "kubernetes": _kubernetes,
    "kubernetes_admission": _kubernetes_admission,
    "kubernetes_patch": _kubernetes_patch,
    "kubernetes_release": _kubernetes_release,
    "mlflow_release": _mlflow_release,
    "pod_spec": _pod_spec,
    "triton": _triton,
    "triton_admission": _triton_admission,
    "triton_release": _triton_release,
    "triton_variant": _triton_variant,
}


@pytest.fixture(params=sorted(set(actuators.REGISTRY) - OWN_SUITE))
def subject(request: pytest.FixtureRequest) -> Iterator[Subject]:
    with ExitStack() as stack:
        yield MAKERS[request.param](stack)


def _main(subject: Subject) -> str:
    return next(knob for knob in ("min_replicas", "version", "variant", "queue_limit", "batch_size", "eu") if knob in subject.change.new)


def test_the_registry_is_sorted_complete_and_names_itself() -> None:
    assert list(actuators.REGISTRY) == sorted(actuators.REGISTRY)
    assert set(MAKERS) | OWN_SUITE == set(actuators.REGISTRY), "a new actuator needs a maker here"
    time = FakeTime()
    for name, factory in actuators.REGISTRY.items():
        assert factory(FakeConnections({}), time.clock, time.sleep).name == name
    with pytest.raises(ConfigError, match="command, http, http_admission, http_breaker, http_config, http_release, http_restart, http_variant, kubernetes, kubernetes_admission, kubernetes_patch, kubernetes_release, kubernetes_restart, mlflow_release, model_repository, pod_spec, triton"):
        actuators.get("nope")


def test_reads_the_truth(subject: Subject) -> None:
    setting = subject.actuator.read(subject.service)
    assert setting.lever == subject.actuator.lever == subject.change.lever
    assert setting.values[_main(subject)] == subject.truth() == subject.change.old[_main(subject)]
    assert setting.version


def test_applies_and_reads_back(subject: Subject) -> None:
    receipt = subject.actuator.apply(subject.service, subject.change, key="plan:lever")
    assert (receipt.applied, receipt.changed) == (True, True)
    assert (receipt.plan_id, receipt.service, receipt.lever) == ("plan", subject.service.name, subject.change.lever)
    assert receipt.before[_main(subject)] == subject.change.old[_main(subject)]
    assert receipt.after[_main(subject)] == subject.truth() == subject.change.new[_main(subject)]
    assert receipt.reason


def test_a_repeat_changes_nothing_and_is_the_same_receipt(subject: Subject) -> None:
    first = subject.actuator.apply(subject.service, subject.change, key="plan:lever")
    again = subject.actuator.apply(subject.service, subject.change, key="plan:lever")
    assert (again.applied, again.changed, again.id) == (True, False, first.id)


def test_the_inverse_restores(subject: Subject) -> None:
    subject.actuator.apply(subject.service, subject.change, key="plan:lever")
    subject.settle()
    subject.actuator.apply(subject.service, subject.change.inverse(), key="undo:lever")
    assert subject.truth() == subject.change.old[_main(subject)]


def test_a_setting_and_a_receipt_survive_json(subject: Subject) -> None:
    setting = subject.actuator.read(subject.service)
    assert type(setting).model_validate_json(setting.model_dump_json()) == setting
    receipt = subject.actuator.apply(subject.service, subject.change, key="plan:lever")
    assert type(receipt).model_validate_json(receipt.model_dump_json()) == receipt


def test_somebody_elses_value_is_left_alone(subject: Subject) -> None:
    subject.foreign()
    foreign = subject.truth()
    with pytest.raises(NotOwner):
        subject.actuator.apply(subject.service, subject.change, key="plan:lever")
    assert subject.truth() == foreign


def test_nobody_there_is_unreachable_and_changes_nothing(subject: Subject) -> None:
    subject.down()
    with pytest.raises(ControlUnreachable, match=r"\w+ .+"):
        subject.actuator.read(subject.service)
    with pytest.raises(ControlUnreachable):
        subject.actuator.apply(subject.service, subject.change, key="plan:lever")
    assert subject.truth() == subject.change.old[_main(subject)]


def test_a_missing_connection_is_a_sentence(subject: Subject) -> None:
    options = {k: v for k, v in subject.service.levers[subject.change.lever].options.items() if k != "connection"}
    lever = subject.service.levers[subject.change.lever].model_copy(update={"options": options})
    bare = subject.service.model_copy(update={"levers": {subject.change.lever: lever}})
    with pytest.raises(ConfigError, match=rf"levers.{subject.change.lever}.connection: connection is missing"):
        subject.actuator.read(bare)


def test_errors_are_of_the_tree(subject: Subject) -> None:
    with pytest.raises((ConfigError, ControlRefused, NotOwner)):
        impossible = dict.fromkeys(subject.change.new, -1)
        subject.actuator.apply(
            subject.service, subject.change.model_copy(update={"old": impossible, "new": impossible}), key="plan:lever"
        )
    assert subject.truth() == subject.change.old[_main(subject)]
