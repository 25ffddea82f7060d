"""docs/quickstart.md, executed: its files are written, its commands run, and the first plan is the right one."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from demo import web
from demo.processes import Child, free_port, wait_until

ROOT = Path(__file__).parents[2]
FENCE = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
pytestmark = [pytest.mark.server, pytest.mark.timeout(400)]


class Reader:
    """Somebody who follows the page in an empty folder; the page's two ports become free ones."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {"8000": str(free_port()), "9090": str(free_port())}
        python = ":".join(filter(None, [str(ROOT), str(ROOT / "plugins"), str(folder)]))
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLOTUNE_", "AIRFLOW"))}
        self.environment = {**kept, "PYTHONPATH": python, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
        self.running: list[Child] = []
        self.said: dict[str, str] = {}

    def text(self, text: str) -> str:
        for port, free in self.ports.items():
            text = re.sub(rf"(?<=[: ]){port}\b", free, text)
        return text

    def types(self, line: str) -> None:
        line = self.text(line)
        if line.endswith(" &"):
            words = line.removesuffix(" &").split()
            program = shutil.which(words[0], path=self.environment["PATH"]) or words[0]
            log = self.folder / f"{words[0]}.log"
            self.running.append(Child(words[0], [program, *words[1:]], log, env=self.environment, cwd=self.folder))
        elif line.startswith("export "):
            name, _, value = line.removeprefix("export ").partition("=")
            self.environment[name] = value.replace("$PWD", str(self.folder))
        else:
            words = line.split()
            assert words[0] == "slotune", line
            code = "from slotune.cli import main; main()"
            done = subprocess.run(
                [sys.executable, "-c", code, *words[1:]], cwd=self.folder, env=self.environment, capture_output=True, text=True
            )
            self.said[words[1]] = done.stdout
            assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"

    def stop(self) -> None:
        for child in self.running:
            child.stop()


def replace_line(file: Path, begins: str, body: str) -> None:
    """The one line that begins so becomes the block."""
    changed, times = re.subn(rf"^{begins}.*\n", lambda _: body, file.read_text(), flags=re.MULTILINE)
    assert times == 1
    file.write_text(changed)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    if shutil.which("prometheus") is None:
        pytest.skip("Prometheus is not on PATH")
    made = Reader(tmp_path)
    try:
        yield made
    finally:
        made.stop()


def test_the_page_leads_from_an_empty_folder_to_the_right_plan(reader: Reader) -> None:
    page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
    blocks = [match.groups() for match in FENCE.finditer(page)]
    assert len(blocks) == 9
    services = reader.folder / "services.yaml"
    for language, title, body in blocks:
        if language == "console":
            for line in body.splitlines():
                if line.startswith("$ slotune discover"):
                    _let_it_run(reader)
                reader.types(line.removeprefix("$ "))
        elif title == "services.yaml slo":
            replace_line(services, r"      p95: ", body)
        elif title == "services.yaml levers":
            replace_line(services, r"    levers: \{\}", body)
        else:
            assert title in ("service.py", "prometheus.yml", "load.py")
            (reader.folder / title).write_text(reader.text(body))
    assert "classifier: generic_histogram" in reader.said["discover"]
    assert "classifier, batch_size: reads batch_size 1" in reader.said["check"].replace("\n", " ")
    assert "found    rows_per_batch" in reader.said["signals"]
    assert re.search(r"choice: batch_size 1 -> \d+", reader.said["plan"]), reader.said["plan"]


def _let_it_run(reader: Reader) -> None:
    """The half minute of the page, from the first request that Prometheus has seen."""
    at = f"http://127.0.0.1:{reader.ports['9090']}"
    query = "count_over_time(http_request_duration_seconds_count%5B5m%5D)"

    def seen() -> bool:
        for child in reader.running:
            child.check()
        if not web.answers(f"{at}/-/ready"):
            return False
        result = web.call(f"{at}/api/v1/query?query={query}")["data"]["result"]
        return bool(result) and float(result[0]["value"][1]) >= 30

    wait_until(seen, 240.0, "thirty scrapes of the service", every_s=1.0)
    time.sleep(1.0)
