"""Which tests execute which lines of the mutated modules: a mutant's tests are those that come to its line."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from tests.mutants.targets import ROOT

Lines = dict[str, set[int]]


@dataclass(frozen=True)
class Reach:
    """tests: node ids by module and line. took_s: of each test, by node id."""

    tests: Mapping[str, Mapping[int, Sequence[str]]]
    took_s: Mapping[str, float]

    def of(self, module: Path, lines: tuple[int, int], likeliest: str) -> list[str]:
        """The tests that come to one of these lines: those of files that begin with `likeliest` first, then the
        quickest. All that come to the module for (0, 0): what is executed at import steers all of it."""
        by_line = self.tests.get(str(module), {})
        wanted = by_line if lines == (0, 0) else range(lines[0], lines[1] + 1)
        found = {test for line in wanted for test in by_line.get(line, ())}
        return sorted(found, key=lambda t: (not Path(t.partition("::")[0]).stem.startswith(likeliest), self.took_s[t]))


@dataclass
class _Tracer:
    """A pytest plugin that notes, for each test, the lines of `files` that it executes (set-up of fixtures too)."""

    files: Mapping[str, str]
    tests: dict[str, dict[int, list[str]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))
    took_s: dict[str, float] = field(default_factory=dict)
    _seen: Lines = field(default_factory=lambda: defaultdict(set))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[None]:
        self._seen = defaultdict(set)
        began_s = time.monotonic()
        sys.settrace(self._called)
        try:
            return (yield)
        finally:
            sys.settrace(None)
            self.took_s[item.nodeid] = time.monotonic() - began_s
            for module, lines in self._seen.items():
                for line in lines:
                    self.tests[module][line].append(item.nodeid)

    def _called(self, frame: FrameType, event: str, arg: object) -> Any:
        module = self.files.get(frame.f_code.co_filename)
        if module is None:
            return None
        lines = self._seen[module]
        lines.add(frame.f_lineno)

        def local(frame: FrameType, event: str, arg: object) -> Any:
            if event == "line":
                lines.add(frame.f_lineno)
            return local

        return local


def reach_of(modules: Sequence[Path], options: Sequence[str], tests: Sequence[str], kept: str = "") -> Reach:
    """Run the tests once, without a mutant. kept: a folder where an earlier run's answer lies, or this one's is put.

    Raises SystemExit where a test fails: nothing could be learned then.
    """
    with tempfile.TemporaryDirectory() as folder:
        named = hashlib.sha256(repr((modules, tests)).encode()).hexdigest()[:16]
        file = Path(kept or folder) / f"reach-{named}.json"
        if not file.is_file():
            pid = os.fork()
            if pid == 0:
                _trace(modules, [*options, *tests], file)
            os.waitpid(pid, 0)
        body = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {"code": 99}
    if body["code"] != 0:
        raise SystemExit(
            f"the tests do not pass without a mutant ({', '.join(tests)}): pytest ended with {body['code']}"
        )
    tests_by_line = {m: {int(line): ids for line, ids in lines.items()} for m, lines in body["tests"].items()}
    return Reach(tests_by_line, body["took_s"])


def _trace(modules: Sequence[Path], arguments: list[str], file: Path) -> None:
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, 1)
        os.dup2(nowhere, 2)
        tracer = _Tracer({str(ROOT / module): str(module) for module in modules})
        code = int(pytest.main(arguments, plugins=[tracer]))
        file.write_text(json.dumps({"code": code, "tests": tracer.tests, "took_s": tracer.took_s}), encoding="utf-8")
    finally:
        os._exit(0)
