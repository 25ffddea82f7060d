"""The command line: exit codes and sentences."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from slotune.reference import reference

ROOT = Path(__file__).parents[2]
GOOD = """
services:
  - {name: ranker, serving: slotune_demo, selectors: {service: ranker}, slo: {p95: 100ms}}
"""


def slotune(*args: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "slotune"
    return subprocess.run([str(program), *args], capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("text", "code", "words"),
    [
        (GOOD, 0, "no mistakes"),
        (GOOD.replace("100ms", "100"), 2, "services.yaml:3: services[0].slo.p95: 100 has no unit"),
        (GOOD.replace("slotune_demo", "tritn"), 2, "tritn"),
    ],
    ids=["right", "a mistake", "an unknown serving system"],
)
def test_check(tmp_path, text, code, words):
    file = tmp_path / "services.yaml"
    file.write_text(text)
    done = slotune("check", str(file))
    assert done.returncode == code and words in (done.stdout + done.stderr).replace("\n", " ")
    assert "Traceback" not in done.stderr


LEVER = "levers: {batch_size: {min: 1, max: 8, connection: ranker_control%s}}"


def worst_case_min(tmp_path: Path, options: str, **environment: str) -> float:
    file = tmp_path / "services.yaml"
    file.write_text(GOOD.replace("}}", "}, " + LEVER % options + "}"))
    program = Path(sys.executable).parent / "slotune"
    done = subprocess.run(
        [str(program), "check", str(file)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
        env={**os.environ, "COLUMNS": "200", **environment},
    )
    return float(re.search(r"([0-9.]+) min +│", done.stdout)[1])


def test_the_worst_case_that_check_shows_counts_one_replica_first_where_there_may_be_several(tmp_path):
    at_once = worst_case_min(tmp_path, ", canary: false")
    one = worst_case_min(tmp_path, "", SLOTUNE_CONN_RANKER_CONTROL="http://127.0.0.1:1")
    pods = worst_case_min(tmp_path, "", SLOTUNE_CONN_RANKER_CONTROL="pods://prod/ranker?port=80&cluster=c")
    several = worst_case_min(tmp_path, ", endpoints: ['http://b:1']")
    unknown = worst_case_min(tmp_path, "")
    assert one == at_once < pods == several == unknown


def test_check_of_a_file_that_is_not_there():
    done = slotune("check", "nowhere.yaml")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False) and "cannot be read" in done.stderr


def test_the_configuration_reference_is_what_the_settings_say():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference(), "run `make docs`"
