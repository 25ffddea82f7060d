"""One round: several services at once, each with two real processes of which one leaks towards its limit.

Real are the processes, their memory and the killer at its limit, Prometheus, the requests and `slotune run`; stand-ins
are the accelerator (it waits) and the Kubernetes API. Services whose mode is observe are left alone: what would happen.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demo import story, web
from demo.kubernetes_api.server import KubernetesApi
from demo.mailbox import Mailbox
from demo.open_loop import Control
from demo.plain_loop import PlainLoop
from demo.pods import Pods, Running
from demo.processes import LOOPBACK, Child, wait_until
from demo.prometheus import Prometheus, Target

LIMIT_MB = 250
CALM_S = 45.0
WATCHED_S = 120.0
RATE = 8.0
ALPHA_MS = 30.0
HEAD = """
prometheus: {rate_window: 10s, step: 1s, timeout: 5s}
mail: {to: [oncall@slotune.example], sender: slotune@slotune.example}
planning: {warm_up: 5s, recent: 15s, verify_window: 20s}
detection: {warm_up: 5s, leak_for: 15s}
verification: {rate_window: 10s, settle_min: 10s, look: 20s, longer_look: 20s, min_points: 4, min_requests: 50,
  min_requests_per_point: 10}
safety: {cool_down: 60s, in_flight: 30s, services_at_once: 10}
services:
"""
SERVICE = """
  - name: {name}
    serving: slotune_demo
    selectors: {{service: {name}}}
    mode: {mode}
    slo: {{p95: 500ms, for: 10s, error_rate: 2%}}
    levers:
      restart: {{connection: slotune_cluster, namespace: {name}, target: {name}, effect_delay: 10s, ready_timeout: 60s}}
"""


@dataclass(frozen=True)
class Leak:
    """One case. healed: slotune may act. mb_per_s: what the one replica leaks from its begin on."""

    name: str
    healed: bool
    mb_per_s: float


@dataclass(frozen=True)
class Result:
    """What became of a case. restarted_s: after the leak's begin, None: not. used_mb: of the limit, as the plan saw it.
    forecast_s: (value, low, high) until the limit, by the plan. failed, sent: requests from the leak's begin on."""

    name: str
    healed: bool
    mb_per_s: float
    restarted_s: float | None
    used_mb: float | None
    forecast_s: tuple[float, float, float] | None
    killed: int
    sent: int
    failed: int
    cause: str
    verdict: str

    @property
    def well(self) -> bool:
        """Restarted once, before the limit, without a lost request."""
        return self.restarted_s is not None and not self.killed and not self.failed


def cases(healed: int, alone: int, seed: int) -> list[Leak]:
    """Leaks that reach the limit within about 65 to 105 seconds."""
    rng = random.Random(seed)
    return [Leak(f"svc{i}", i < healed, round(rng.uniform(1.6, 2.6), 2)) for i in range(healed + alone)]


class Fleet:
    """The parts of a round, as a context."""

    def __init__(self, leaks: Sequence[Leak], seed: int) -> None:
        self.leaks, self.seed = leaks, seed
        self._parts = ExitStack()
        self._told = threading.Lock()
        self.home = Path(tempfile.mkdtemp(prefix="slotune-restarts-"))
        self.pods: dict[str, Pods] = {}
        self._ready: dict[str, list[Running]] = {leak.name: [] for leak in leaks}
        self.ledger_url = f"sqlite:///{self.home / 'ledger.sqlite'}"

    def __enter__(self) -> Fleet:
        try:
            self._start()
        except BaseException:
            self._parts.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._parts.close()

    def _start(self) -> None:
        mailbox = Mailbox(self.home / "mails")
        mailbox.start()
        self._parts.callback(mailbox.stop)
        self.prometheus = Prometheus(self.home / "prometheus.log")
        self._parts.callback(self.prometheus.stop)
        self.prometheus.start()
        cluster = KubernetesApi(LOOPBACK, 0)
        cluster.start()
        self._parts.callback(cluster.stop)
        cluster.cluster.place = self._place
        for leak in self.leaks:
            self._deploy(cluster, leak.name)
        wait_until(lambda: all(len(found) == 2 for found in self._ready.values()), 120.0, "all pods becoming ready")
        for leak in self.leaks:
            self._load(leak.name)
        config = self.home / "services.yaml"
        modes = {leak.name: "act" if leak.healed else "observe" for leak in self.leaks}
        config.write_text(HEAD + "".join(SERVICE.format(name=name, mode=mode) for name, mode in modes.items()))
        smtp = json.dumps(
            {"conn_type": "smtp", "host": LOOPBACK, "port": mailbox.port, "extra": {"disable_tls": True}}
        )
        loop = PlainLoop(Path(__file__).parents[2], self.home / "loop.log", {
            "SLOTUNE_CONFIG": str(config), "SLOTUNE_HOME": str(self.home),
            "SLOTUNE_CONN_SLOTUNE_PROMETHEUS": self.prometheus.url, "SLOTUNE_CONN_SLOTUNE_CLUSTER": cluster.url,
            "SLOTUNE_CONN_SMTP_DEFAULT": smtp})  # fmt: skip
        loop.start()
        self._parts.callback(loop.stop)

    def _place(self, pod: dict[str, Any]) -> tuple[str, int] | None:
        return self.pods[pod["metadata"]["namespace"]].place(pod)

    def _deploy(self, cluster: KubernetesApi, name: str) -> None:
        words = ["--emulated", "--alpha-ms", str(ALPHA_MS), "--model", name, "--memory-limit-mb", str(LIMIT_MB)]
        container = {"name": "server", "args": words, "resources": {"limits": {"memory": f"{LIMIT_MB}M"}}}
        self.pods[name] = Pods(
            cluster.store, name, {"app": name},
            lambda words, port: [sys.executable, "-m", "demo.server", "--port", str(port), *words],
            self.home / name, lambda ready: self._changed(name, ready), health="/v2/health/ready",
        )  # fmt: skip
        self.pods[name].start()
        self._parts.callback(self.pods[name].stop)
        cluster.add_namespace(name)
        cluster.add_deployment(name, name, 2, spec={"containers": [container]})

    def _changed(self, name: str, ready: list[Running]) -> None:
        with self._told:  # the pods of each service are followed by a thread of their own
            self._ready[name] = ready
            self.prometheus.targets(
                [Target(one.address, service, one.name) for service, found in self._ready.items() for one in found]
            )
        Control(tuple(one.address for one in ready), ((RATE, None),), 1, name).write(self._control(name))

    def _control(self, name: str) -> Path:
        return self.home / f"{name}-control.json"

    def _load(self, name: str) -> None:
        command = [sys.executable, "-m", "demo.load", "--control", str(self._control(name)),
                   "--out", str(self.home / f"{name}.jsonl"), "--seed", str(self.seed)]  # fmt: skip
        load = Child(f"load of {name}", command, self.home / f"{name}-load.log")
        self._parts.callback(load.stop)

    def leak(self) -> float:
        """Begin all leaks; when."""
        for leak in self.leaks:
            web.call(f"http://{self._ready[leak.name][-1].address}/fault", {"leak_mb_per_s": leak.mb_per_s})
        return time.time()

    def result(self, leak: Leak, begun_s: float) -> Result:
        events = [e for e in story.read_ledger(self.ledger_url) if e.body.get("service") == leak.name]
        plan = next((e.body for e in events if e.kind == "choose_action" and e.at_s >= begun_s), {})
        sick = plan.get("diagnosis", {}).get("sick") or {}
        left = sick.get("left_s") or {}
        made = [e.at_s for e in events if e.kind == "restart_replica" and e.body.get("changed")]
        verdicts = [e.body["verdict"] for e in events if e.kind == "verify_p95" and "verdict" in e.body]
        log = story.LoadLog(self.home / f"{leak.name}.jsonl")
        seconds = [second for second in log.read() if second.t > begun_s]
        return Result(
            name=leak.name,
            healed=leak.healed,
            mb_per_s=leak.mb_per_s,
            restarted_s=round(made[0] - begun_s, 1) if len(made) == 1 else None,
            used_mb=round(sick["own"] * 1e9 / 2**20, 1) if sick else None,
            forecast_s=(left["value"], left["low"], left["high"]) if left else None,
            killed=len(self.pods[leak.name].killed),
            sent=sum(second.sent for second in seconds),
            failed=sum(second.errors for second in seconds),
            cause=plan.get("diagnosis", {}).get("cause", ""),
            verdict=verdicts[-1] if verdicts else "",
        )


def campaign(leaks: Sequence[Leak], seed: int) -> list[Result]:
    """One round over all leaks at once."""
    with Fleet(leaks, seed) as fleet:
        time.sleep(CALM_S)
        begun_s = fleet.leak()
        time.sleep(WATCHED_S)
        return [fleet.result(leak, begun_s) for leak in leaks]
