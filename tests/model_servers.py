"""Real model servers for tests, on loopback ports of their own, where scripts/model-servers has put them.

SLOTUNE_TEST_SERVERS names the folder of their environments; by default it is beside this one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import requests

from demo.processes import Child, free_port, wait_until

RANKER = """
from ray import serve


@serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 0})
class Ranker:
    def reconfigure(self, config):
        self.rank.set_max_batch_size(config["max_batch_size"])
        self.rank.set_batch_wait_timeout_s(config["batch_wait_timeout_s"])

    @serve.batch(max_batch_size=1, batch_wait_timeout_s=0.0)
    async def rank(self, rows):
        return [len(rows)] * len(rows)

    async def __call__(self, request):
        return await self.rank(1)


app = Ranker.bind()
"""
RAY = """
proxy_location: HeadOnly
http_options: {{host: 127.0.0.1, port: {port}}}
applications:
  - name: ranker
    import_path: ranker:app
    deployments:
      - {{name: Ranker, user_config: {{max_batch_size: 4, batch_wait_timeout_s: 0.05}}}}
"""
RUNTIME = """
import asyncio

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceResponse


class Ranker(MLModel):
    async def load(self):
        return True

    async def predict(self, payload):
        rows = len(NumpyCodec.decode_input(payload.inputs[0]))
        await asyncio.sleep(0.05)
        return InferenceResponse(model_name=self.name, outputs=[NumpyCodec.encode_output("rows", np.full((rows, 1), rows))])
"""


def bin_of(server: str) -> Path | None:
    """Where a server's programs are; None where it is not installed."""
    beside = Path(sys.prefix).resolve().parent / ".servers"
    found = Path(os.environ.get("SLOTUNE_TEST_SERVERS") or beside) / server / "bin"
    return found if (found / "python").exists() else None


def largest_batch(ask, count: int = 32) -> int:
    """The largest batch that so many requests at once were answered in; `ask` sends one and returns its batch."""
    with ThreadPoolExecutor(count) as pool:
        return max(pool.map(lambda _: ask(), range(count)))


@contextmanager
def ray_serve(folder: Path) -> Iterator[tuple[str, str]]:
    """(address of the dashboard, address of the application) of a Ray with one application, deployed from a file."""
    programs = bin_of("ray")
    assert programs is not None
    ports = {name: free_port() for name in ("gcs", "dashboard", "client", "agent", "http")}
    (folder / "ranker.py").write_text(RANKER)
    (folder / "config.yaml").write_text(RAY.format(port=ports["http"]))
    environment = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "RAY_"))},
        "PATH": f"{programs}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(folder),
        "RAY_USAGE_STATS_ENABLED": "0",
    }
    short = tempfile.mkdtemp(prefix="ray-")  # its sockets' paths have to fit into 107 bytes
    dashboard, application = (f"http://127.0.0.1:{ports[name]}" for name in ("dashboard", "http"))
    head = [
        str(programs / "ray"), "start", "--head", "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1",
        f"--port={ports['gcs']}", "--dashboard-host=127.0.0.1", f"--dashboard-port={ports['dashboard']}",
        f"--ray-client-server-port={ports['client']}", f"--dashboard-agent-listen-port={ports['agent']}",
        "--min-worker-port=0", "--max-worker-port=0", "--num-cpus=2", "--object-store-memory=100000000",
        f"--temp-dir={short}",
    ]  # fmt: skip
    child = Child("ray", head, folder / "ray.log", env=environment, cwd=folder)
    try:
        wait_until(lambda: _answers(f"{dashboard}/api/serve/applications/"), 180, "Ray's dashboard", every_s=1.0)
        deploy = [str(programs / "serve"), "deploy", "config.yaml", "--address", dashboard]
        subprocess.run(deploy, cwd=folder, env=environment, check=True, capture_output=True, timeout=120)
        wait_until(lambda: _answers(application), 180, "the application on Ray Serve", every_s=1.0)
        yield dashboard, application
    finally:
        with contextlib.suppress(subprocess.TimeoutExpired):
            stop = [str(programs / "serve"), "shutdown", "--yes", "--address", dashboard]
            subprocess.run(stop, cwd=folder, env=environment, capture_output=True, timeout=60, check=False)
        child.stop(30.0)
        shutil.rmtree(short, ignore_errors=True)


@contextmanager
def mlserver(folder: Path) -> Iterator[str]:
    """The address of an MLServer with one model, `ranker`, whose settings lie in the folder."""
    programs = bin_of("mlserver")
    assert programs is not None
    port, ports = free_port(), [free_port(), free_port()]
    (folder / "runtime.py").write_text(RUNTIME)
    (folder / "model-settings.json").write_text(
        '{"name": "ranker", "implementation": "runtime.Ranker", "max_batch_size": 4, "max_batch_time": 0.05}'
    )
    (folder / "settings.json").write_text(
        f'{{"host": "127.0.0.1", "http_port": {port}, "grpc_port": {ports[0]}, "metrics_port": {ports[1]}, "parallel_workers": 0}}'
    )
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")} | {"PYTHONPATH": str(folder)}
    child = Child("mlserver", [str(programs / "mlserver"), "start", "."], folder / "log", env=environment, cwd=folder)
    at = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: _answers(f"{at}/v2/models/ranker/ready"), 120, "MLServer", every_s=1.0)
        yield at
    finally:
        child.stop(20.0)


def _answers(url: str) -> bool:
    try:
        return requests.get(url, timeout=5).ok
    except requests.RequestException:
        return False
