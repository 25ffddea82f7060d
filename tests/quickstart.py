"""Somebody who follows docs/quickstart.md in an empty folder: writes its files, types its commands, reads the answers."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from demo import web
from demo.processes import Child, free_port, wait_until

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w+)(?: ([^\n]*))?\n(.*?)^```$", re.DOTALL | re.MULTILINE)
PUT = {
    "slo": r"      p95: .*\n",
    "levers": r"    levers: \{\}.*\n",
    "mode": r"    mode: .*\n",
    "verification": r"services:\n",
}
"""The line of services.yaml that a block of the page takes the place of."""


class Reader:
    """The page's ports become free ones. pip: what is done in place of `pip install` (None: not at all).

    said: the output of each command, by its first two words. took_s: the time since the first command, by the same.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str], pip: Callable[[], None] | None = None) -> None:
        self.folder = folder
        self.environment = dict(environment)
        self.said: dict[str, str] = {}
        self.took_s: dict[str, float] = {}
        self._pip = pip
        self._ports = {"8000": str(free_port()), "9090": str(free_port())}
        self._running: list[Child] = []
        self._began_s = time.monotonic()

    def follow(self, *, until: str = "") -> None:
        """The whole page, or up to and with the command that begins so."""
        page = (ROOT / "docs" / "quickstart.md").read_text(encoding="utf-8")
        for language, title, body in FENCE.findall(page):
            if language != "console":
                self._write(title, body)
                continue
            for line in body.splitlines():
                self._type(line.removeprefix("$ "))
                if until and line.startswith(f"$ {until}"):
                    return

    def control(self) -> dict[str, dict[str, int]]:
        """What the service's own endpoint shows."""
        shown: dict[str, dict[str, int]] = web.call(f"http://127.0.0.1:{self._ports['8000']}/admin/batching")
        return shown

    def stop(self) -> None:
        for child in self._running:
            child.stop()

    def _write(self, title: str, body: str) -> None:
        name, _, part = title.partition(" ")
        file = self.folder / name
        if not part:
            file.write_text(self._here(body))
            return
        changed, times = re.subn(PUT[part], lambda _: body, file.read_text(), flags=re.MULTILINE)
        assert times == 1, f"{part}: {times} such lines in {name}"
        file.write_text(changed)

    def _type(self, line: str) -> None:
        if line.startswith("slotune discover"):
            self._let_it_run()
        words = shlex.split(self._here(line.removesuffix(" &")))
        if line.endswith(" &"):
            program = shutil.which(words[0], path=self.environment["PATH"]) or words[0]
            log = self.folder / f"{words[0]}.log"
            child = Child(words[0], [program, *words[1:]], log, env=self.environment, cwd=self.folder)
            self._running.append(child)
        elif words[0] == "export":
            name, _, value = words[1].partition("=")
            self.environment[name] = value.replace("$PWD", str(self.folder))
        elif words[:2] == ["pip", "install"]:
            if self._pip is not None:
                self._pip()
        else:
            self._run(words, line)
        self.took_s[" ".join(words[:2])] = time.monotonic() - self._began_s

    def _run(self, words: list[str], line: str) -> None:
        program = shutil.which(words[0], path=self.environment["PATH"])
        assert program, f"{words[0]} is not on PATH"
        done = subprocess.run(
            [program, *words[1:]], cwd=self.folder, env=self.environment, capture_output=True, text=True, timeout=600
        )
        self.said[" ".join(words[:2])] = done.stdout
        assert done.returncode == 0, f"{line}\n{done.stdout[-6000:]}\n{done.stderr[-3000:]}"

    def _here(self, text: str) -> str:
        for port, free in self._ports.items():
            text = re.sub(rf"(?<=[: ]){port}\b", free, text)
        return text

    def _let_it_run(self) -> None:
        """The half minute of the page, from the first request that Prometheus has seen."""
        at = f"http://127.0.0.1:{self._ports['9090']}"
        query = "count_over_time(http_request_duration_seconds_count%5B5m%5D)"

        def seen() -> bool:
            for child in self._running:
                child.check()
            if not web.answers(f"{at}/-/ready"):
                return False
            result = web.call(f"{at}/api/v1/query?query={query}")["data"]["result"]
            return bool(result) and float(result[0]["value"][1]) >= 30

        wait_until(seen, 240.0, "thirty scrapes of the service", every_s=1.0)
        time.sleep(1.0)


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment without anything of slotune, Airflow or Python in it."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("SLOTUNE_", "AIRFLOW", "PYTHON", "VIRTUAL_ENV"))}
    return {**kept, **more}
