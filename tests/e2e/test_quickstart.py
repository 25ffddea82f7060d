"""docs/quickstart.md to its end, as a new user: the wheel in an empty environment, and the change through Airflow."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quickstart import ROOT, Reader, clean_environment
from tests.wheel import build

pytestmark = [pytest.mark.e2e, pytest.mark.airflow, pytest.mark.server, pytest.mark.timeout(900)]
WITHIN_S = 300.0
"""The page's promise: from `pip install` to the first plan."""


def _uv() -> str:
    beside_the_environment = Path(sys.prefix).resolve().parent / ".uv" / "bin" / "uv"
    found = shutil.which("uv") or str(beside_the_environment)
    if not Path(found).exists():
        pytest.skip("uv is not here (scripts/bootstrap brings it)")
    return found


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not on PATH")
    uv, venv, folder = _uv(), tmp_path / "venv", tmp_path / "folder"
    folder.mkdir()
    (tmp_path / "built").mkdir()
    wheel = build(tmp_path / "built")
    subprocess.run([uv, "venv", "--quiet", "--python", sys.executable, str(venv)], check=True, timeout=60)
    into = ["--python", str(venv / "bin" / "python"), "--constraint", str(ROOT / "constraints.txt")]

    def pip() -> None:
        packages = [str(wheel), "fastapi", "uvicorn", "prometheus-client"]
        subprocess.run([uv, "pip", "install", "--quiet", *into, *packages], check=True, timeout=600)

    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    made = Reader(folder, clean_environment(PATH=path, AIRFLOW__CORE__LOAD_EXAMPLES="False"), pip)
    try:
        yield made
    finally:
        made.stop()


def test_from_pip_install_to_the_first_plan_and_the_change_that_airflow_makes(reader: Reader) -> None:
    reader.follow()
    for command, seconds in reader.took_s.items():
        print(f"{seconds:6.1f} s  {command}")
    assert re.search(r"choice: batch_size 1 -> \d+", reader.said["slotune plan"])
    assert reader.took_s["slotune plan"] <= WITHIN_S
    rows = reader.control()["batching"]["max_rows"]
    assert rows > 1, reader.said["airflow dags"][-4000:]
    assert re.search(rf"batch_size 1 -> {rows} +improved, resolved", reader.said["slotune incidents"])
    assert re.search(rf"batch_size 1 -> {rows} +kept", reader.said["slotune changes"])
