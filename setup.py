"""How the wheel is laid out: everything under the one import name `slotune`, beside Airflow's `slotune_airflow`.

`detection` and `tuning` are names that any project may have, so the repository's folders are shipped as
`slotune.detection` and `slotune.tuning`, with their import statements turned accordingly (docs/adr/ tells why). An
editable install leaves everything as it stands in the repository.
"""

from __future__ import annotations

import ast
import shutil
import sys
from pathlib import Path

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
GATHERED = {"detection": "slotune/detection", "tuning": "slotune/tuning"}
"""Folder of the repository -> place in the wheel."""
DAGS = {"dags": "slotune_airflow/dags"}
KEPT = {".py", ".html", ".txt", ".css", ".js", ".svg", ".mako", ".ini", ".json", ".yaml", ".typed", ".j2"}


def turned(source: str, where: str) -> str:
    """The source with `from detection...` as `from slotune.detection...`; SystemExit where that cannot be done."""
    lines = source.split("\n")
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] in GATHERED:
                    raise SystemExit(f"{where}:{node.lineno}: write `from {alias.name} import ...`: see setup.py")
        if isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] in GATHERED:
            line = lines[node.lineno - 1]
            lines[node.lineno - 1] = line.replace(f"from {node.module}", f"from slotune.{node.module}", 1)
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            head, dot, rest = node.value.partition(".")
            if dot and head in GATHERED and rest.replace(".", "").isidentifier():
                raise SystemExit(f"{where}:{node.lineno}: a module is named by a text, {node.value!r}: see setup.py")
    return "\n".join(lines)


class BuildPackage(build_py):
    """Adds the gathered folders to what is built."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        built = Path(self.build_lib)
        for file in built.rglob("*.py"):
            file.write_text(turned(file.read_text(encoding="utf-8"), str(file)), encoding="utf-8")
        for folder, place in (GATHERED | DAGS).items():
            for file in sorted((ROOT / folder).rglob("*")):
                if file.suffix in KEPT and "__pycache__" not in file.parts:
                    self._gather(file, built / place / file.relative_to(ROOT / folder))

    def _gather(self, file: Path, target: Path) -> None:
        target.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".py":
            where = str(file.relative_to(ROOT))
            target.write_text(turned(file.read_text(encoding="utf-8"), where), encoding="utf-8")
        else:
            shutil.copyfile(file, target)


if __name__ == "__main__":
    editable = "editable_wheel" in sys.argv
    setup(
        packages=[
            *find_packages(include=["slotune", "slotune.*", *(f"{name}*" for name in GATHERED if editable)]),
            "slotune_airflow",
        ],
        package_dir={"slotune_airflow": "plugins/slotune_airflow"},
        cmdclass={"build_py": BuildPackage},
    )
