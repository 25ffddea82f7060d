"""Runs the tests of a module on a mutant of it: in a forked process that has the libraries loaded, and never on disk."""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import json
import math
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import CodeType, ModuleType

import pytest

from tests.mutants.mutations import mutated
from tests.mutants.targets import ROOT

QUICK = "not server and not airflow and not e2e and not faults"


OPTIONS = (
    "-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-o", "timeout=0", "--rootdir", str(ROOT), "-m", QUICK,
    "--no-header", "--tb=no",
)  # fmt: skip
"""No limit of wall time: on a busy machine it would end a test, and that would look like a test that noticed."""
ASLEEP = 20.0
"""Wall time, in CPU limits, after which a mutant that uses no CPU is ended too."""
KILLED, SURVIVED, ENDLESS, UNIMPORTABLE, BROKEN = "killed", "survived", "endless", "unimportable", "broken"
_VERDICTS = {0: SURVIVED, 1: KILLED, 2: UNIMPORTABLE}
"""By pytest's exit code: a test failed; collecting failed, so no test looked at anything."""

Job = tuple[Path, int | None, Sequence[str], float]
"""Module, number of the mutation, its tests (files, or node ids in the order wanted), seconds of CPU that they may use."""


class _Swap(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Gives one module the code of its mutant."""

    def __init__(self, name: str, path: Path, code: CodeType) -> None:
        self.name, self.path, self.code = name, path, code

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != self.name:
            return None
        spec = importlib.machinery.ModuleSpec(name, self, origin=str(self.path))
        spec.has_location = True
        return spec

    def exec_module(self, module: ModuleType) -> None:
        exec(self.code, module.__dict__)


@dataclass(frozen=True)
class _Only:
    """Runs these tests of what was collected, in this order."""

    tests: Sequence[str]

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        place = {test: k for k, test in enumerate(self.tests)}
        items[:] = sorted((i for i in items if i.nodeid in place), key=lambda i: place[i.nodeid])


@dataclass
class Started:
    """A mutant whose tests run. `verdict` asks how it went and does not wait."""

    pid: int
    limit_s: float
    began_s: float
    took_s: float = 0.0

    def verdict(self) -> str:
        """ "" while it runs, then: killed (a test failed), survived, endless (used up its CPU time: a busy machine is
        no reason), unimportable (no test could be collected) or broken (pytest could not even start)."""
        self.took_s = time.monotonic() - self.began_s
        done, status = os.waitpid(self.pid, os.WNOHANG)
        if not done:
            if self.took_s > ASLEEP * self.limit_s:
                os.kill(self.pid, signal.SIGKILL)
            return ""
        code = os.waitstatus_to_exitcode(status)
        return ENDLESS if code in (-signal.SIGXCPU, -signal.SIGKILL) else _VERDICTS.get(code, BROKEN)


def start(module: Path, number: int | None, tests: Sequence[str], limit_s: float) -> Started:
    """The tests on a mutant (number None: on the module as it is), in a process of their own."""
    sys.stdout.flush()
    began_s = time.monotonic()
    pid = os.fork()
    if pid == 0:
        _child(module, number, tests, limit_s)
    return Started(pid, limit_s, began_s)


def run_all(jobs: Sequence[Job], workers: int, tell: Callable[[int, str, float], None], until_s: float) -> None:
    """Every job, `workers` at once, none begun after `until_s` (monotonic); `tell` gets its place, verdict and seconds. One thread: forking allows no second."""
    waiting = list(enumerate(jobs))
    running: dict[int, Started] = {}
    while waiting or running:
        if time.monotonic() > until_s:
            waiting = []
        while waiting and len(running) < workers:
            place, job = waiting.pop(0)
            running[place] = start(*job)
        for place, started in list(running.items()):
            if verdict := started.verdict():
                del running[place]
                tell(place, verdict, started.took_s)
        time.sleep(0.02)


def _child(module: Path, number: int | None, tests: Sequence[str], limit_s: float) -> None:
    """Never returns. Exit code: pytest's."""
    code = 99
    try:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_CPU, (math.ceil(limit_s), math.ceil(limit_s) + 5))
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        _forget()
        if number is not None:
            tree = mutated((ROOT / module).read_text(encoding="utf-8"), number)
            name = ".".join(module.with_suffix("").parts)
            sys.meta_path.insert(0, _Swap(name, ROOT / module, compile(tree, str(ROOT / module), "exec")))
        files = dict.fromkeys(test.partition("::")[0] for test in tests)
        code = int(pytest.main([*OPTIONS, *files], plugins=[_Only(tests)] if "::" in "".join(tests) else []))
    finally:
        os._exit(code)


def _forget() -> None:
    """This repository's own modules are loaded anew, so that all of them see the mutant."""
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and Path(file).is_relative_to(ROOT) and "site-packages" not in Path(file).parts:
            del sys.modules[name]


def warm(tests: Sequence[str]) -> None:
    """Load the libraries that the tests need, and none of this repository's own modules: forked processes share them."""
    with tempfile.NamedTemporaryFile() as file:
        pid = os.fork()
        if pid == 0:
            try:
                os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
                pytest.main(["-q", "--collect-only", "-p", "no:cacheprovider", "-m", QUICK, *tests])
                Path(file.name).write_text(json.dumps(_libraries()), encoding="utf-8")
            finally:
                os._exit(0)
        os.waitpid(pid, 0)
        names = json.loads(Path(file.name).read_text(encoding="utf-8") or "[]")
    for name in names:
        try:
            import_module(name)
        except Exception:  # an optional part of a library: the tests load it themselves if they need it
            continue


def _libraries() -> list[str]:
    found = []
    for name, module in list(sys.modules.items()):
        file = getattr(module, "__file__", None)
        if file and "site-packages" in Path(file).parts and "pytest" not in name:
            found.append(name)
    return sorted(found, key=lambda name: name.count("."))
