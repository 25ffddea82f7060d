"""The parts of one demo run: started in order, watched, stopped in reverse."""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2

from demo import models, web
from demo.airflow import Airflow
from demo.control import FleetControl
from demo.mailbox import Mailbox
from demo.open_loop import Control
from demo.plain_loop import PlainLoop
from demo.pods import Pods, Running
from demo.processes import LOOPBACK, Child, DemoError, free_port, sweep, wait_until
from demo.prometheus import Prometheus, Target
from demo.replicas import Replica, Replicas
from demo.scenarios import Language, Scenario

Engine = Airflow | PlainLoop
NAMESPACE, SERVICE = "demo", "ranker"
MAX_QUEUE = 20_000
"""Making INT8 takes tens of seconds under overload: what waits meanwhile must not be refused."""
CALIBRATION_ROWS = 1024
HELD_BACK_ROWS = 4000
ANOTHER_SCALE = 0.05
"""What "another distribution" is: the same inputs in another unit, as when the pre-processing was changed since."""


class Stack:
    """Everything below `home`. Each start_* adds its stop to a list that `stop` walks backwards."""

    def __init__(
        self, repository: Path, home: Path, scenario: Scenario, seed: int, *, with_airflow: bool = True,
        executor: str = "standalone",
    ) -> None:  # fmt: skip
        self.repository, self.home, self.scenario, self.seed = repository, home, scenario, seed
        self.with_airflow, self.executor = with_airflow, executor
        self.run = home / "run"
        self.ledger_url = f"sqlite:///{(self.run / 'ledger.sqlite').absolute()}"
        shutil.rmtree(self.run, ignore_errors=True)
        self.logs = self.run / "logs"
        self.logs.mkdir(parents=True)
        self._stops: list[tuple[str, Callable[[], None]]] = []
        self._checks: list[Callable[[], None]] = []
        self._schedule_id = 0
        self._endpoints: list[str] = []
        self._schedule: list[tuple[float, float | None]] = []
        self.cpu = measured_core()
        self.load_out, self._load_control = self.run / "load.jsonl", self.run / "load-control.json"
        self.control_url = ""
        self.variants: dict[str, float] = {}
        self.cluster: Any = None
        self.hpa_env: dict[str, str] = {}

    # parts

    def start_mailbox(self) -> None:
        self.mailbox = Mailbox(self.run / "mails")
        self.mailbox.start()
        self._stops.append(("mailbox", self.mailbox.stop))

    def start_prometheus(self) -> None:
        self.prometheus = Prometheus(self.logs / "prometheus.log")
        self._stops.append(("Prometheus", self.prometheus.stop))
        self.prometheus.start()
        self._checks.append(self.prometheus.check)

    def make_model(self) -> Path:
        return models.cached(self.home / "models")

    def _smaller(self) -> Path:
        return models.cached(self.home / "models", models.SMALLER)

    def measure_variants(self, ratio: float) -> dict[str, float]:
        """What services.yaml says of both models: shares of right answers (full, small) on `rows` held-back rows, and
        how long the smaller one takes against the other."""
        quality = {
            name: round(models.right_share(path, rows=HELD_BACK_ROWS, seed=self.seed + 2000), 4)
            for name, path in (("full", self.make_model()), ("small", self._smaller()))
        }
        self.variants = {**quality, "ratio": round(min(ratio, 0.99), 3), "rows": HELD_BACK_ROWS}
        return self.variants

    def start_service(self) -> None:
        """The inference service: one real server, or replicas behind the Kubernetes-shaped API."""
        if self.scenario.language is not None:
            self._start_language(self.scenario.language)
        elif self.scenario.serving == "real":
            self._start_real()
        elif self.scenario.serving == "pods":
            self._start_pods()
        else:
            self._start_replicas()

    def _start_real(self) -> None:
        self.model_repository = models.repository(self.run / "models", self.make_model(), SERVICE)
        if self.scenario.release:
            models.averaged(self.make_model(), self.model_repository / SERVICE / "2" / "model.onnx")
        if self.scenario.variant:
            models.repository(self.run / "models", self._smaller(), SERVICE, version=2)
        address = f"{LOOPBACK}:{free_port()}"
        server = Child("inference server", [
            sys.executable, "-m", "demo.server", "--port", address.rsplit(":", 1)[1], *self._server_options(),
            "--version", "1", "--model-repository", self.model_repository],
            self.logs / "server.log", cwd=self.repository)  # fmt: skip
        self._stops.append(("inference server", server.stop))
        self._checks.append(server.check)
        self.control_url = f"http://{address}"

        def ready() -> bool:
            server.check()
            return web.answers(f"{self.control_url}/v2/health/ready")

        wait_until(ready, 60.0, "the inference server becoming ready")
        self._publish([Target(address, SERVICE, f"{SERVICE}-0")])

    def _precision_files(self) -> dict[str, str]:
        """Where the precision lever finds its model and its rows; writes the rows. Empty without that lever."""
        kind = self.scenario.calibration
        if kind is None:
            return {}
        scale = ANOTHER_SCALE if kind == "another" else 1.0
        rows = models.calibration(
            self.run / "calibration.npz", rows=CALIBRATION_ROWS, seed=self.seed + 1000, scale=scale, now_s=time.time()
        )
        return {"onnx": str(self.make_model()), "calibration": str(rows), "repository": str(self.model_repository)}

    def _server_options(self) -> list[str]:
        options = ["--model", SERVICE, "--batch-size", str(self.scenario.batch_size), "--seed", str(self.seed)]
        options += ["--max-queue", str(MAX_QUEUE)] if self.scenario.calibration else []
        return options if self.cpu is None else [*options, "--cpu", str(self.cpu)]

    def _start_replicas(self) -> None:
        try:
            from demo.kubernetes_api.server import KubernetesApi
        except ImportError as failure:
            raise DemoError(f"the Kubernetes-shaped API cannot be loaded: {failure}") from None
        s = self.scenario
        options = [*self._server_options(), "--emulated", "--alpha-ms", str(s.alpha_ms), "--beta-ms", str(s.beta_ms)]
        self.replicas = Replicas(NAMESPACE, SERVICE, options, self.logs, self._replicas_changed)
        self._stops.append(("replicas", self.replicas.stop))
        self.fleet = FleetControl(lambda: [r.address for r in self.replicas.running])
        self.fleet.start()
        self._stops.append(("fleet control", self.fleet.stop))
        self.control_url = self.fleet.url
        self.cluster = KubernetesApi(
            LOOPBACK, 0, on_scale=self.replicas.on_scale, ready=self.replicas.ready, where=self._places
        )
        self.cluster.start()
        self._stops.append(("Kubernetes API", self.cluster.stop))
        self.cluster.add_namespace(NAMESPACE)
        self.cluster.add_deployment(NAMESPACE, SERVICE, s.replicas)
        self.replicas.on_scale(NAMESPACE, SERVICE, s.replicas)
        self.cluster.add_hpa(NAMESPACE, SERVICE, SERVICE, s.replicas, s.max_replicas)
        ready = self.replicas.ready
        wait_until(lambda: ready(NAMESPACE, SERVICE) == s.replicas, 30.0, f"{s.replicas} replicas becoming ready")

    def _start_pods(self) -> None:
        """The emulated accelerator behind a Deployment whose pods have a limit of memory."""
        s = self.scenario
        command = [sys.executable, "-m", "demo.server"]
        words = [
            *self._server_options(), "--emulated", "--alpha-ms", str(s.alpha_ms), "--beta-ms", str(s.beta_ms),
            "--memory-limit-mb", str(s.memory_mb),
        ]  # fmt: skip
        container = {
            "name": "server", "image": "emulated", "args": words,
            "resources": {"limits": {"memory": f"{s.memory_mb}M"}},
        }  # fmt: skip
        self._start_deployment(
            lambda words, port: [*command, "--port", str(port), *words], container, s.replicas, "/v2/health/ready"
        )
        wait_until(lambda: len(self.pods.ready) == s.replicas, 60.0, f"{s.replicas} pods becoming ready")

    def _start_deployment(
        self,
        command: Callable[[Sequence[str], int], Sequence[str | Path]],
        container: Mapping[str, Any],
        count: int,
        health: str = "/health",
    ) -> None:
        """A Deployment whose pods are processes."""
        from demo.kubernetes_api.server import KubernetesApi

        self.cluster = KubernetesApi(LOOPBACK, 0)
        self.pods = Pods(
            self.cluster.store, NAMESPACE, {"app": SERVICE}, command, self.logs, self._pods_changed, health=health
        )
        self.cluster.cluster.place = self.pods.place
        self.cluster.start()
        self._stops.append(("Kubernetes API", self.cluster.stop))
        self.pods.start()
        self._stops.append(("pods", self.pods.stop))
        self.cluster.add_namespace(NAMESPACE)
        self.cluster.add_deployment(NAMESPACE, SERVICE, count, spec={"containers": [dict(container)]})

    def _start_language(self, language: Language) -> None:
        """An emulated engine behind a Deployment, whose pods run it with the arguments of their template."""
        command = [sys.executable, "-m", "demo.language.server"]
        words = [
            f"--max-num-seqs={self.scenario.batch_size}", f"--max-num-batched-tokens={language.max_num_batched_tokens}",
            "--block-size=16", f"--num-gpu-blocks-override={language.kv_tokens // 16}", "--max-model-len=4096",
            f"--step-ms={language.step_ms}", f"--seq-ms={language.seq_ms}", f"--token-ms={language.token_ms}",
        ]  # fmt: skip
        container = {"name": "engine", "image": "emulated", "args": words}
        self._start_deployment(lambda words, port: [*command, "--port", str(port), *words], container, 1)
        wait_until(lambda: bool(self.pods.ready), 60.0, "the emulated engine becoming ready")

    def _pods_changed(self, ready: list[Running]) -> None:
        self._publish([Target(one.address, SERVICE, one.name) for one in ready])

    def _max_num_seqs(self) -> int:
        """As the pod template says."""
        from demo.kubernetes_api.resources import DEPLOYMENT

        workload = self.cluster.store.find(DEPLOYMENT, NAMESPACE, SERVICE)
        words = workload["spec"]["template"]["spec"]["containers"][0]["args"]
        return int([word for word in words if word.startswith("--max-num-seqs=")][-1].partition("=")[2])

    def _replicas_changed(self, running: list[Replica]) -> None:
        for replica in running:
            with contextlib.suppress(OSError):
                self.fleet.teach(replica.address)
        pods = self._pods()
        names = [*pods, *(r.name for r in running[len(pods) :])]
        self._publish([Target(r.address, SERVICE, name) for r, name in zip(running, names, strict=False)])

    def _places(self, namespace: str, name: str) -> list[tuple[str, int]]:
        """(address, port) of the pods, oldest first."""
        if (namespace, name) != (NAMESPACE, SERVICE):
            return []
        split = (r.address.rsplit(":", 1) for r in self.replicas.running)
        return [(host, int(port)) for host, port in split]

    def _pods(self) -> list[str]:
        """The names of the pods, oldest first: the series of a replica carry its pod's name, as in a cluster."""
        from demo.kubernetes_api.resources import POD

        return sorted(pod["metadata"]["name"] for pod in self.cluster.store.list(POD, NAMESPACE))

    def _publish(self, targets: list[Target]) -> None:
        self._endpoints = [t.address for t in targets]
        self.prometheus.targets(targets)
        self._write_control()

    # load

    def start_load(self, rate: float) -> None:
        self.set_rate(rate)
        kind = "demo.load" if self.scenario.language is None else "demo.language.load"
        load = Child("load generator", [
            sys.executable, "-m", kind, "--control", self._load_control, "--out", self.load_out,
            "--seed", str(self.seed), *self._load_options()], self.logs / "load.log", cwd=self.repository,
            nice=-5)  # fmt: skip
        self._stops.append(("load generator", load.stop))
        self._checks.append(load.check)

    def _load_options(self) -> list[str]:
        """Where INT8 has to be made under overload, clients wait for their answers, and rarely ask the same twice."""
        if (language := self.scenario.language) is not None:
            lengths = [f"{mean:g},{spread:g}" for mean, spread in (language.prompt, language.output)]
            return ["--prompt", lengths[0], "--output", lengths[1], "--watch", language.watched[0]]
        return ["--timeout-s", "300", "--bodies", "2048"] if self.scenario.calibration else []

    def load_address(self) -> str:
        """host:port of one serving process."""
        return self._endpoints[0]

    def set_rate(self, rate: float, burst: tuple[float, float] | None = None) -> None:
        """Requests per second from now on, or once a burst (requests per second, seconds) is over."""
        self._schedule_id += 1
        self._schedule = [*([burst] if burst is not None else []), (rate, None)]
        self._write_control()

    def _write_control(self) -> None:
        control = Control(tuple(self._endpoints), tuple(self._schedule), self._schedule_id, SERVICE)
        control.write(self._load_control)

    # slotune in Airflow

    def start_engine(self, slo_ms: float) -> Engine:
        """Writes services.yaml and starts what runs the loop: Airflow, or the plain loop."""
        config = self.run / "services.yaml"
        env = {
            "SLOTUNE_CONFIG": str(config),
            "SLOTUNE_HOME": str(self.run),
            "SLOTUNE_CONN_SLOTUNE_PROMETHEUS": self.prometheus.url,
            "SLOTUNE_CONN_SLOTUNE_RANKER": self._lever_address(),
            "AIRFLOW_CONN_SMTP_DEFAULT": _smtp(self.mailbox.port),
            "SLOTUNE_CONN_SMTP_DEFAULT": _smtp(self.mailbox.port),
        }
        if self.cluster is not None:
            env["SLOTUNE_CONN_SLOTUNE_CLUSTER"] = self.cluster.url
        engine: Engine
        if self.with_airflow and self.executor == "celery":
            from demo.celery_airflow import CeleryAirflow

            engine = CeleryAirflow(self.home / "airflow", self.repository, self.logs / "airflow.log", env)
            self.ledger_url = env["SLOTUNE_LEDGER_URL"] = engine.ledger_url
        elif self.with_airflow:
            engine = Airflow(self.home / "airflow", self.repository, self.logs / "airflow.log", env)
        else:
            engine = PlainLoop(self.repository, self.logs / "loop.log", env)
        files = self._precision_files()
        config.write_text(render_config(self.repository, self.scenario, slo_ms, engine.url, files, self.variants))
        (self.run / "env.sh").write_text("".join(f"export {k}='{v}'\n" for k, v in env.items()))
        self._stops.append(("the loop", engine.stop))
        engine.start()
        self._checks.append(engine.check)
        return engine

    def _lever_address(self) -> str:
        """Where the batch lever finds the service: its pods one by one, where there are any."""
        if self.scenario.language is not None:
            return self.cluster.url if self.cluster is not None else ""
        return f"pods://{NAMESPACE}/{SERVICE}?port=8000&cluster=slotune_cluster" if self.cluster else self.control_url

    # all

    def settings_now(self) -> dict[str, Any]:
        """The levers' truth, asked from the service itself."""
        now: dict[str, Any] = {}
        if self.scenario.language is not None:
            return {"max_num_seqs": self._max_num_seqs(), "replicas": len(self.pods.ready)}
        if self.scenario.serving == "pods":
            return {"replicas": len(self.pods.ready), "oom_kills": len(self.pods.killed)}
        with contextlib.suppress(OSError, ValueError):
            config = web.call(f"{self.control_url}/config", timeout_s=2.0)
            now = {k: config[k] for k in ("batch_size", "batch_timeout_ms", "version", "precision")}
        if self.cluster is not None:
            now["replicas"] = self.replicas.ready(NAMESPACE, SERVICE)
        return now

    def check(self) -> None:
        """Raises DemoError when a part has died."""
        for check in self._checks:
            check()

    def stop(self) -> list[str]:
        """Stop everything, last started first; returns what had to be ended beside that."""
        while self._stops:
            name, stop = self._stops.pop()
            try:
                stop()
            except Exception as failure:  # one part that does not stop must not keep the others alive
                print(f"stopping {name}: {failure}", file=sys.stderr)
        return sweep()


def render_config(
    repository: Path,
    scenario: Scenario,
    slo_ms: float,
    airflow_url: str,
    files: Mapping[str, str] | None = None,
    variants: Mapping[str, float] | None = None,
) -> str:
    """The text of services.yaml for a scenario. files: onnx, calibration and repository of the precision lever.

    variants: what was measured of both models (`Stack.measure_variants`).
    """
    environment = jinja2.Environment(autoescape=False, undefined=jinja2.StrictUndefined, keep_trailing_newline=True)
    name = "services.yaml.j2" if scenario.language is None else "services-language.yaml.j2"
    template = environment.from_string((repository / "demo" / name).read_text())
    return template.render(
        scenario=scenario, slo_ms=f"{slo_ms:g}", airflow_url=airflow_url, files=files or {}, variants=variants or {}
    )


def measured_core() -> int | None:
    """The last core, for the service alone; None when there is only one."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[-1] if len(cores) > 1 else None


def leave_measured_core(core: int | None) -> None:
    """This process, and what it starts, keep off that core."""
    if core is not None:
        os.sched_setaffinity(0, set(os.sched_getaffinity(0)) - {core})


def _smtp(port: int) -> str:
    return (
        f'{{"conn_type": "smtp", "host": "{LOOPBACK}", "port": {port}, "extra": '
        '{"disable_ssl": true, "disable_tls": true, "from_email": "slotune@slotune.example", "timeout": 5}}'
    )
