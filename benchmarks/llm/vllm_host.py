"""Runs under vLLM's own Python: imports it once and forks servers, so that a restart takes seconds and not a minute.

`python vllm_host.py FOLDER` makes a small model's configuration and tokenizer in FOLDER and says "ready"; each line
`PORT ARG ARG ...` on stdin then starts a server on that port and answers with its process group, `stop GROUP` ends one.
Weights are random (--load-format dummy): what an iteration costs does not depend on what it says.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import time
from pathlib import Path

VOCABULARY = 2048
SHAPE = {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 6, "num_attention_heads": 6,
         "num_key_value_heads": 3}  # fmt: skip


def make_model(folder: Path) -> None:
    """config.json and a byte-level tokenizer whose vocabulary is filled up, so that every random token decodes."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(["<s>", "</s>", *alphabet])}
    vocabulary |= {f"Ġt{number}": number for number in range(len(vocabulary), VOCABULARY)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.save_pretrained(folder)
    config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": VOCABULARY, **SHAPE,
              "max_position_embeddings": 4096, "bos_token_id": 0, "eos_token_id": 1, "hidden_act": "silu",
              "rms_norm_eps": 1e-5, "torch_dtype": "float32", "tie_word_embeddings": False}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))


def fork_engines() -> None:
    """vLLM on a CPU spawns its engine, which imports everything again; a fork has it already."""
    from vllm.platforms.cpu import CpuPlatform

    before = CpuPlatform.check_and_update_config.__func__

    def after(cls: type, config: object) -> None:
        before(cls, config)
        os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "fork"

    CpuPlatform.check_and_update_config = classmethod(after)


def serve(port: str, args: list[str], log: str) -> int:
    """A child with a process group of its own that becomes the server; its engine is in the same group.

    The session stays: schedulers that share a machine by session keep what the benchmark was given.
    """
    child = os.fork()
    if child:
        return child
    os.setpgid(0, 0)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644)
    for stream, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (out, 2)):
        os.dup2(stream, target)
    sys.argv = ["server", "--host", "127.0.0.1", "--port", port, *args]
    try:
        runpy.run_module("vllm.entrypoints.openai.api_server", run_name="__main__", alter_sys=True)
    finally:
        os._exit(0)


def main() -> None:
    folder = Path(sys.argv[1])
    os.environ.update(HF_HUB_OFFLINE="1", VLLM_NO_USAGE_STATS="1", DO_NOT_TRACK="1", OMP_NUM_THREADS="1",
                      VLLM_CPU_OMP_THREADS_BIND="nobind", VLLM_ENABLE_V1_MULTIPROCESSING="0")  # fmt: skip
    make_model(folder)
    fork_engines()
    import vllm.entrypoints.openai.api_server
    import vllm.model_executor.models.llama
    import vllm.v1.engine.core
    import vllm.v1.worker.cpu_model_runner  # noqa: F401

    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    print("ready", flush=True)
    groups: set[int] = set()
    # Whoever ends the benchmark ends the servers, which have process groups of their own.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        for line in sys.stdin:
            answer(line.split(), groups, str(folder / "server.log"))
    finally:
        for group in groups:
            os.killpg(group, signal.SIGKILL)


def answer(words: list[str], groups: set[int], log: str) -> None:
    """One order: "stop GROUP", or a port and the arguments of a server."""
    if words[0] == "stop":
        os.killpg(int(words[1]), signal.SIGKILL)
        groups.discard(int(words[1]))
        time.sleep(0.3)
        print("stopped", flush=True)
        return
    group = serve(words[0], words[1:], log)
    groups.add(group)
    print(group, flush=True)


if __name__ == "__main__":
    main()
