"""The Kubernetes manifests fit the schemas of the API server, and name things that are there."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
FILES = sorted(FOLDER.rglob("*.yaml"))
MANIFESTS = [
    f for f in FILES if f.name not in ("kustomization.yaml", "servicemonitor.yaml") and f.parent.name != "airflow"
]
VERSIONS = ("1.32", "1.36")


def documents(path: Path) -> list[Any]:
    return [d for d in yaml.safe_load_all(path.read_text()) if d]


def name_of(path: Path) -> str:
    return str(path.relative_to(FOLDER))


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=name_of)
def test_fits_the_schema(path: Path, version: str) -> None:
    for document in documents(path):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_validator_would_see_a_mistake() -> None:
    broken = documents(FOLDER / "example" / "hpa.yaml")[0]
    broken["spec"]["minReplica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(broken, VERSIONS[-1], strict=True)


@pytest.mark.parametrize("path", [f for f in FILES if f.name == "kustomization.yaml"], ids=name_of)
def test_kustomizations_name_files_that_are_there(path: Path) -> None:
    body = documents(path)[0]
    assert body["kind"] in ("Kustomization", "Component")
    assert body["resources"]
    for entry in [*body["resources"], *body.get("components", [])]:
        assert (path.parent / entry).exists(), entry


def test_every_manifest_is_used_by_a_kustomization() -> None:
    used = {
        (path.parent / entry).resolve()
        for path in FILES
        if path.name == "kustomization.yaml"
        for entry in documents(path)[0]["resources"]
    }
    assert [name_of(f) for f in MANIFESTS if f.resolve() not in used] == []


@pytest.mark.parametrize("path", [f for f in FILES if f.name == "role.yaml"], ids=name_of)
def test_roles_are_bound_and_least(path: Path) -> None:
    role, binding = documents(path)[0], documents(path.with_name("rolebinding.yaml"))[0]
    assert binding["roleRef"]["name"] == role["metadata"]["name"]
    account = documents(FOLDER / "base" / "serviceaccount.yaml")[0]["metadata"]
    assert {(s["name"], s["namespace"]) for s in binding["subjects"]} == {(account["name"], account["namespace"])}
    for rule in role["rules"]:
        assert "*" not in (*rule["verbs"], *rule["resources"], *rule["apiGroups"])
        if path.parent.name == "int8-build":  # a build's pod is named after its change: only pods, and never changed
            assert set(rule["verbs"]) <= {"create", "get", "list", "delete"}
            assert set(rule["resources"]) <= {"pods", "pods/log"} and rule["apiGroups"] == [""]
            continue
        if rule["resources"] == ["pods/eviction"]:  # asks for a pod's end, which a PodDisruptionBudget may refuse
            assert path.parent.name == "restart" and rule["verbs"] == ["create"] and rule["apiGroups"] == [""]
            continue
        assert set(rule["verbs"]) <= {"get", "list", "watch", "patch"}
        assert rule.get("resourceNames") or rule["verbs"] == ["list"], "every right but list names its objects"


def test_the_example_fits_together() -> None:
    deployment, hpa, svc = (documents(FOLDER / "example" / f"{n}.yaml")[0] for n in ("deployment", "hpa", "service"))
    pod = deployment["spec"]["template"]
    assert hpa["spec"]["scaleTargetRef"]["name"] == deployment["metadata"]["name"]
    assert svc["spec"]["selector"].items() <= pod["metadata"]["labels"].items()
    assert "replicas" not in deployment["spec"], "the HPA owns them"
    container = pod["spec"]["containers"][0]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["image"].rpartition(":")[2] not in ("", "latest")
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(container["ports"][0]["containerPort"])


def test_the_service_monitor_gives_the_labels_that_slotune_selects() -> None:
    monitor = documents(FOLDER / "components" / "prometheus-operator" / "servicemonitor.yaml")[0]
    endpoint = monitor["spec"]["endpoints"][0]
    assert {r["targetLabel"] for r in endpoint["relabelings"]} == {"service", "replica"}
    svc = documents(FOLDER / "example" / "service.yaml")[0]
    assert endpoint["port"] in {p["name"] for p in svc["spec"]["ports"]}
    assert monitor["spec"]["selector"]["matchLabels"].items() <= svc["metadata"]["labels"].items()


@pytest.mark.parametrize("executor", ["KubernetesExecutor", "CeleryExecutor"])
def test_helm_values(executor: str) -> None:
    short = executor.removesuffix("Executor").lower()
    values = documents(FOLDER / "airflow" / f"values-{short}-executor.yaml")[0]
    assert values["executor"] == executor
    assert values["airflowVersion"] == airflow_version()
    assert values["workers"]["serviceAccount"] == {"create": False, "name": "slotune"}
    assert values["redis"]["enabled"] == (executor == "CeleryExecutor")
    assert values["triggerer"]["enabled"], "settle waits there"
    text = (FOLDER / "airflow" / f"values-{short}-executor.yaml").read_text()
    assert "password:" not in text, "secrets are named, never written"


def airflow_version() -> str:
    pinned = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if line.count("==") == 1
    )
    return pinned["apache-airflow"].split(" ")[0]
