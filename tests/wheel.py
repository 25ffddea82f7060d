"""The wheel, built from a copy of what it is made of, so that the build leaves nothing in the checkout."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
SOURCES = (
    "detection",
    "tuning",
    "slotune",
    "plugins",
    "dags",
    "pyproject.toml",
    "setup.py",
    "MANIFEST.in",
    "README.md",
)


def build(folder: Path) -> Path:
    """The wheel's path below the (empty) folder; AssertionError with the build's last words."""
    checkout, wheels = folder / "checkout", folder / "wheels"
    checkout.mkdir()
    for name in SOURCES:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, checkout / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, checkout / name)
    code = "import sys; from setuptools.build_meta import build_wheel; print(build_wheel(sys.argv[1]))"
    done = subprocess.run(
        [sys.executable, "-c", code, str(wheels)],
        cwd=checkout,
        capture_output=True,
        text=True,
        timeout=250,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    (wheel,) = wheels.glob("*.whl")
    return wheel
