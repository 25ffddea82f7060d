"""A real Triton for tests: NVIDIA's server as the wheel `nvidia-pytriton` carries it, on loopback ports of its own.

SLOTUNE_TEST_TRITON names the server binary (.../pytriton/tritonserver/bin/tritonserver); without it the wheel is looked
for where scripts/triton-wheel puts it. The wheel has the python backend only, so its "onnxruntime" backend here is a Python file that
runs ONNX Runtime: the repository on disk is the one that a Triton with the full backend reads.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import requests

from demo.processes import free_port

BACKEND = """
import json, os
import numpy as np
import onnxruntime as ort
import triton_python_backend_utils as pb


class TritonPythonModel:
    def initialize(self, args):
        config = json.loads(args["model_config"])
        name = config.get("default_model_filename") or "model.onnx"
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        path = os.path.join(args["model_repository"], args["model_version"], name)
        self.session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs = [tensor["name"] for tensor in config["input"]]
        self.outputs = [tensor["name"] for tensor in config["output"]]

    def execute(self, requests):
        rows = {n: [pb.get_input_tensor_by_name(r, n).as_numpy() for r in requests] for n in self.inputs}
        sizes = [len(array) for array in rows[self.inputs[0]]]
        found = self.session.run(self.outputs, {n: np.concatenate(arrays) for n, arrays in rows.items()})
        ends = np.cumsum(sizes)
        return [
            pb.InferenceResponse([pb.Tensor(n, a[end - size : end]) for n, a in zip(self.outputs, found)])
            for size, end in zip(sizes, ends)
        ]
"""


@dataclass(frozen=True)
class TritonServer:
    """A running server. repository: its models on disk."""

    url: str
    grpc: str
    metrics: str
    repository: Path

    def ready(self) -> bool:
        try:
            return requests.get(f"{self.url}/v2/health/ready", timeout=2).status_code == 200
        except requests.RequestException:
            return False


def find_triton() -> Path | None:
    """The server's binary: SLOTUNE_TEST_TRITON, else that of scripts/triton-wheel; None where it cannot run."""
    named = os.environ.get("SLOTUNE_TEST_TRITON")
    wheels = Path(__file__).resolve().parents[1].glob(".triton/lib/python3*/site-packages/pytriton/tritonserver")
    binary = Path(named) if named else next((wheel / "bin/tritonserver" for wheel in wheels), None)
    return binary if binary is not None and binary.is_file() and _libpython() else None


def _libpython() -> bool:
    """Whether the library is there that Triton's Python backend is linked against."""
    name = f"libpython3.{sys.version_info.minor}.so.1.0"
    try:
        ctypes.CDLL(name)
    except OSError:
        return (Path(str(sysconfig.get_config_var("LIBDIR"))) / name).is_file()
    return True


@contextmanager
def triton_server(
    binary: Path,
    folder: Path,
    repository: Path,
    *,
    mode: str = "explicit",
    more: Sequence[str] = (),
    backend: str = BACKEND,
) -> Iterator[TritonServer]:
    """Starts the server over `repository`; `folder` gets its backends and its log. Ready within 30 s, or an error.

    mode: its model control mode. more: further command-line options. backend: the Python file behind "onnxruntime".
    """
    wheel = binary.parents[1]
    site = wheel.parents[1]
    stub = wheel / f"python_backend_stubs/{sys.version_info.major}.{sys.version_info.minor}"
    shutil.copytree(wheel / "backends", folder / "backends")
    shutil.copy(stub / "triton_python_backend_stub", folder / "backends/python")
    (folder / "backends/python/triton_python_backend_stub").chmod(0o755)
    (folder / "backends/onnxruntime").mkdir()
    (folder / "backends/onnxruntime/model.py").write_text(backend)
    http, grpc, metrics = free_port(), free_port(), free_port()
    command = [
        str(binary), f"--model-repository={repository}", f"--backend-directory={folder / 'backends'}",
        f"--model-control-mode={mode}", "--metrics-interval-ms=500", "--http-thread-count=16",
        "--http-address=127.0.0.1", f"--http-port={http}", "--grpc-address=127.0.0.1", f"--grpc-port={grpc}",
        "--metrics-address=127.0.0.1", f"--metrics-port={metrics}",
        *(["--load-model=*"] if mode == "explicit" else ["--repository-poll-secs=1"] if mode == "poll" else []), *more,
    ]  # fmt: skip
    environment = {
        **os.environ,
        "LD_LIBRARY_PATH": f"{site / 'nvidia_pytriton.libs'}:{sysconfig.get_config_var('LIBDIR')}",
        "PYTHONPATH": str(site),
        "PATH": f"{site.parents[2] / 'bin'}:{os.environ['PATH']}",
    }
    server = TritonServer(f"http://127.0.0.1:{http}", f"127.0.0.1:{grpc}", f"127.0.0.1:{metrics}", repository)
    log = folder / "triton.log"
    with log.open("wb") as out:
        # a session of its own: a Triton that must be killed leaves its Python backend behind, which goes with the group
        process = subprocess.Popen(
            command, env=environment, stdout=out, stderr=subprocess.STDOUT, start_new_session=True
        )
    try:
        end = time.monotonic() + 30
        while not server.ready():
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"Triton did not start: {log.read_text(errors='replace')[-1500:]}")
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(5)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
