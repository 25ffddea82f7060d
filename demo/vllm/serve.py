"""vLLM's OpenAI server on a CPU with two processes instead of three: the engine is forked, not spawned.

Runs in vLLM's environment with the arguments of its server: `.vllm/bin/python demo/vllm/serve.py --model ... --port ...`.
A forked engine saves a second import of everything (half a minute on two cores). It must not keep the server's socket,
and must end with it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import runpy
import signal
import socket
import sys
from typing import Any

os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", "nobind")
os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
for quiet in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "VLLM_NO_USAGE_STATS", "DO_NOT_TRACK"):
    os.environ[quiet] = "1"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# keeps the executor in the engine's own process on a CPU; the server still talks to that process
os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")


def fork_the_engine() -> None:
    from vllm.platforms.cpu import CpuPlatform

    usual = CpuPlatform.check_and_update_config.__func__

    def checked(cls: Any, config: Any) -> None:
        usual(cls, config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    CpuPlatform.check_and_update_config = classmethod(checked)


def leave_the_socket(port: int) -> None:
    """In a forked child: end with the parent, and close what the parent listens on."""
    for fd in map(int, os.listdir("/proc/self/fd")):
        with contextlib.suppress(OSError):
            if not os.readlink(f"/proc/self/fd/{fd}").startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(fd)) as twin:
                inet = twin.family in (socket.AF_INET, socket.AF_INET6)
                if inet and twin.getsockname()[1] == port:
                    os.close(fd)
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    port = int(sys.argv[sys.argv.index("--port") + 1])
    fork_the_engine()
    os.register_at_fork(after_in_child=lambda: leave_the_socket(port))
    sys.argv[0] = "api_server"
    runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
