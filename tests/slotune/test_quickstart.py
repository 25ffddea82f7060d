"""docs/quickstart.md up to the first plan, executed on the checkout; tests/e2e/test_quickstart.py goes on to the change."""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.quickstart import ROOT, Reader, clean_environment

pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not on PATH")
    python = os.pathsep.join(map(str, (ROOT, ROOT / "plugins", tmp_path)))
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    made = Reader(tmp_path, clean_environment(PYTHONPATH=python, PATH=path))
    try:
        yield made
    finally:
        made.stop()


def test_the_page_leads_from_an_empty_folder_to_the_right_plan(reader: Reader) -> None:
    reader.follow(until="slotune plan")
    assert "classifier: generic_histogram" in reader.said["slotune discover"]
    assert "classifier, batch_size: reads batch_size 1" in reader.said["slotune check"].replace("\n", " ")
    assert "found    rows_per_batch" in reader.said["slotune signals"]
    plan = reader.said["slotune plan"]
    assert re.search(r"choice: batch_size 1 -> \d+", plan), plan
    assert reader.control() == {"batching": {"max_rows": 1}}  # planning changes nothing
