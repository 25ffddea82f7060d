"""Which modules are mutated, and which quick tests have to notice."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]

TARGETS = {
    "detection/detectors/training.py": ("tests/detection/test_training.py",),
    "detection/ensemble.py": ("tests/detection/test_scoring.py", "tests/detection/test_pipeline.py"),
    "detection/incidents.py": ("tests/detection/test_incidents.py", "tests/detection/test_pipeline.py"),
    "detection/scoring.py": ("tests/detection/test_scoring.py", "tests/detection/test_pipeline.py"),
    "detection/training.py": ("tests/detection/test_training.py",),
    "tuning/attempt.py": ("tests/tuning/loop/test_attempt.py", "tests/tuning/loop/test_loop_once.py"),
    "tuning/guards": ("tests/tuning/guards",),
    "tuning/ledger/memory.py": ("tests/contracts/test_ledger.py",),
    "tuning/planning": (
        "tests/tuning/planning",
        "tests/contracts/test_engines.py",
        "tests/contracts/test_planners.py",
        "tests/detection/test_training.py",
    ),
    "tuning/policies": ("tests/tuning/policies",),
    "tuning/verification": ("tests/tuning/verification",),
}
"""By module or folder: its tests, those of the same name first."""


REFERENCE = "tests/slotune/test_cli.py::test_the_configuration_reference_is_what_the_settings_say"
"""Defaults are a promise of docs/configuration.md: this test compares them."""


def modules() -> list[Path]:
    """Every module that is mutated, from the repository's root."""
    found: list[Path] = []
    for target in TARGETS:
        path = ROOT / target
        found += [path] if path.suffix else [p for p in path.rglob("*.py") if p.name != "__init__.py"]
    return sorted(p.relative_to(ROOT) for p in found)


def suite_of(module: Path) -> list[str]:
    """Test files of a module, the likeliest to notice first."""
    area = next(target for target in TARGETS if module.is_relative_to(target))
    files: list[Path] = []
    for place in TARGETS[area]:
        path = ROOT / place
        files += [path] if path.is_file() else sorted(path.rglob("test_*.py")) if path.is_dir() else []
    likeliest = sorted(dict.fromkeys(files), key=lambda p: not p.stem.startswith(f"test_{module.stem}"))
    found = [str(p.relative_to(ROOT)) for p in likeliest]
    return [REFERENCE, *found] if module.stem == "settings" else found
