"""A real Prometheus server of our own: free port on loopback, scrapes every second, replicas come and go by file."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from demo import web
from demo.processes import LOOPBACK, Child, DemoError, free_port, wait_until

_CONFIG = """\
global: {{scrape_interval: {scrape_ms}ms, scrape_timeout: {timeout_ms}ms, evaluation_interval: 5s}}
scrape_configs:
  - job_name: inference
    honor_labels: {honor_labels}
    file_sd_configs: [{{files: ["{folder}/targets.json"], refresh_interval: 5s}}]
"""


@dataclass(frozen=True)
class Target:
    """One thing to scrape: host:port, and the labels that its series get."""

    address: str
    service: str
    replica: str


class Prometheus:
    """Start, `targets`, stop. As root it runs as `nobody`, in a folder of its own."""

    def __init__(self, log: Path, *, scrape_s: float = 1.0, retention: str = "2h", honor_labels: bool = False) -> None:
        """honor_labels: a label of the series itself goes before the target's (slotune's own metrics name services)."""
        program = shutil.which("prometheus")
        if program is None:
            raise DemoError(
                "Prometheus is not on PATH. Install it with your system's packages "
                "(Debian: sudo apt-get install --no-install-recommends prometheus)."
            )
        self._program, self._log, self._scrape_s, self._retention = program, log, scrape_s, retention
        self._honor_labels = honor_labels
        self._folder = Path(tempfile.mkdtemp(prefix="slotune-prometheus-"))
        self._child: Child | None = None
        self.url = ""

    def start(self) -> None:
        """Raises DemoError when it does not become ready, or when somebody else answers on its port."""
        user = "nobody" if os.geteuid() == 0 else None
        data = self._folder / "data"
        data.mkdir()
        self.targets([])
        scrape_ms = round(self._scrape_s * 1000)
        config = self._folder / "prometheus.yml"
        config.write_text(
            _CONFIG.format(
                scrape_ms=scrape_ms,
                timeout_ms=round(scrape_ms * 0.9),
                folder=self._folder,
                honor_labels=str(self._honor_labels).lower(),
            )
        )
        self._folder.chmod(0o755)
        if user:
            shutil.chown(data, user)
        port = free_port()
        self.url = f"http://{LOOPBACK}:{port}"
        self._child = Child(
            "Prometheus",
            [
                self._program, f"--config.file={config}", f"--storage.tsdb.path={data}",
                f"--storage.tsdb.retention.time={self._retention}", "--query.lookback-delta=5s",
                f"--web.listen-address={LOOPBACK}:{port}", "--log.level=warn",
            ],
            self._log, cwd=self._folder, user=user)  # fmt: skip
        wait_until(self._ready, 30.0, "Prometheus becoming ready")
        flags = web.call(f"{self.url}/api/v1/status/flags")["data"]
        if flags.get("storage.tsdb.path") != str(data):
            raise DemoError(f"another Prometheus answers at {self.url}; run the demo again")

    def _ready(self) -> bool:
        assert self._child is not None
        self._child.check()
        return web.answers(f"{self.url}/-/ready")

    def targets(self, targets: Sequence[Target]) -> None:
        """Replace what is scraped."""
        groups = [{"targets": [t.address], "labels": {"service": t.service, "replica": t.replica}} for t in targets]
        partial = self._folder / "targets.partial"
        partial.write_text(json.dumps(groups))
        partial.chmod(0o644)
        partial.replace(self._folder / "targets.json")

    def value(self, query: str) -> float | None:
        """An instant query's one value, None when there is none."""
        from urllib.parse import quote

        result = web.call(f"{self.url}/api/v1/query?query={quote(query)}")["data"]["result"]
        return float(result[0]["value"][1]) if result else None

    def check(self) -> None:
        if self._child is not None:
            self._child.check()

    def stop(self) -> None:
        if self._child is not None:
            self._child.stop()
        shutil.rmtree(self._folder, ignore_errors=True)
