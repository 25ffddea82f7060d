"""The import contracts of .importlinter: each is kept, each rejects its example, and none leaves out a file."""

from __future__ import annotations

import ast
import copy
from pathlib import Path

import grimp
import pytest
from importlinter.application.use_cases import _register_contract_types, read_user_options
from importlinter.configuration import configure
from importlinter.domain.contract import registry

ROOT = Path(__file__).parents[1]
PACKAGES = ("detection", "tuning", "slotune", "slotune_airflow", "demo")

configure()
OPTIONS = read_user_options(str(ROOT / ".importlinter"))
_register_contract_types(OPTIONS)
CONTRACTS = {contract["id"]: contract for contract in OPTIONS.contracts_options}

REJECTED = {
    "direction": ("detection.model", "tuning.model"),
    "detection-core": ("detection.ports", "detection.sources.recorded"),
    "tuning-core": ("tuning.policies.lease", "tuning.loop.act"),
    "loop-and-clients": ("tuning.loop.act", "tuning.actuators.triton"),
    "planning-core": ("tuning.planning.thresholds", "tuning.planning.playbook"),
    "views": ("slotune.web.app", "tuning.ledger.sql"),
    "registries": ("slotune_airflow.steps", "tuning.actuators"),
    "no-circles": ("tuning.guards.facts", "tuning.loop.act"),
    "detectors-apart": ("detection.detectors.iqr", "detection.detectors.sigma"),
    "sources-apart": ("detection.sources.recorded", "detection.sources.prometheus"),
    "presets-apart": ("detection.presets.vllm", "detection.presets.triton"),
    "actuators-apart": ("tuning.actuators.triton", "tuning.actuators.http_config"),
    "notifiers-apart": ("tuning.notifiers.smtp", "tuning.notifiers.log"),
    "protocols-apart": ("slotune.stress.protocols.oip", "slotune.stress.protocols.openai"),
    "planners-apart": ("tuning.planning.playbook", "tuning.planning.model_planner"),
    "no-airflow": ("tuning.loop.act", "airflow"),
    "pure": ("tuning.planning.diagnosis", "kubernetes"),
}
"""By contract: an import (importer, imported) that must break it."""

FOLDERS = {
    "detectors-apart": "detection/detectors",
    "sources-apart": "detection/sources",
    "presets-apart": "detection/presets",
    "actuators-apart": "tuning/actuators",
    "protocols-apart": "slotune/stress/protocols",
    "notifiers-apart": "tuning/notifiers",
}
NO_IMPLEMENTATIONS = {"settings", "search"}


@pytest.fixture(scope="module")
def graph():
    return grimp.build_graph(*PACKAGES, include_external_packages=True, cache_dir=None)


def kept(contract_id, graph) -> bool:
    options = {key: value for key, value in CONTRACTS[contract_id].items() if key not in ("id", "name", "type")}
    kind = registry.get_contract_class(CONTRACTS[contract_id]["type"])
    contract = kind(name=contract_id, session_options=OPTIONS.session_options, contract_options=options)
    return contract.check(copy.deepcopy(graph), verbose=False).kept


def test_every_contract_has_an_example():
    assert sorted(REJECTED) == sorted(CONTRACTS)


@pytest.mark.parametrize("contract_id", sorted(REJECTED))
def test_a_contract_is_kept_and_rejects_its_example(contract_id, graph):
    importer, imported = REJECTED[contract_id]
    assert importer in graph.modules and imported in graph.modules
    assert kept(contract_id, graph)
    broken = copy.deepcopy(graph)
    broken.add_import(importer=importer, imported=imported)
    assert not kept(contract_id, broken)


@pytest.mark.parametrize("contract_id", sorted(FOLDERS))
def test_a_plural_folder_is_listed_whole(contract_id):
    folder = ROOT / FOLDERS[contract_id]
    files = {path.stem for path in folder.glob("*.py") if not path.stem.startswith("_")} - NO_IMPLEMENTATIONS
    listed = {name.rpartition(".")[2] for name in CONTRACTS[contract_id]["modules"]}
    assert listed == files


def private_imports(graph) -> list[str]:
    """Imports of a module with a leading underscore from outside its own folder."""
    found = []
    for importer in sorted(graph.modules):
        for imported in sorted(graph.find_modules_directly_imported_by(importer)):
            folder, _, name = imported.rpartition(".")
            inside = importer == folder or importer.startswith(f"{folder}.")
            if imported.split(".")[0] in PACKAGES and name.startswith("_") and not inside:
                found.append(f"{importer} -> {imported}")
    return found


def test_no_private_module_of_another_package_is_imported(graph):
    assert private_imports(graph) == []


def test_a_private_import_is_found(graph):
    broken = copy.deepcopy(graph)
    broken.add_import(importer="tuning.loop.act", imported="tuning.actuators._http")
    assert "tuning.loop.act -> tuning.actuators._http" in private_imports(broken)


def imported_by(path: Path) -> set[str]:
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    names = {node.module.split(".")[0] for node in nodes if isinstance(node, ast.ImportFrom) and node.module}
    return names | {alias.name.split(".")[0] for node in nodes if isinstance(node, ast.Import) for alias in node.names}


@pytest.mark.parametrize("path", sorted((ROOT / "dags").glob("*.py")), ids=lambda path: path.stem)
def test_a_dag_file_wires_only(path):
    ours_and_heavy = {"detection", "tuning", "slotune", "demo", "tests", "benchmarks", "numpy", "sklearn", "sqlalchemy"}
    assert imported_by(path) & ours_and_heavy == set()
    assert "airflow" in imported_by(path)
