"""The command line: exit codes and sentences."""

from __future__ import annotations

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


def test_check_of_a_file_that_is_not_there():
    done = slotune("check", "nowhere.yaml")
    assert (done.returncode, "Traceback" in done.stderr) == (2, False) and "cannot be read" in done.stderr


def test_the_configuration_reference_is_what_the_settings_say():
    assert (ROOT / "docs" / "configuration.md").read_text() == reference(), "run `make docs`"
