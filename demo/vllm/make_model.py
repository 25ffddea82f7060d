"""A language model of random weights with its tokenizer, made on the spot: it answers nonsense at a real model's pace.

    .vllm/bin/python demo/vllm/make_model.py FOLDER [--hidden 512 --layers 8 --vocabulary 4096]

Runs in vLLM's environment (torch, transformers, tokenizers); nothing is downloaded.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
from pathlib import Path

TEMPLATE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"
WORDS = "the queue grows while servers batch tokens and every answer waits for the one before it under load".split()


def make_tokenizer(folder: Path, vocabulary: int) -> int:
    """Byte-level BPE over a few words, filled up so that every id can be decoded; the number of ids."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    rng = random.Random(7)
    tokenizer = Tokenizer(models.BPE(unk_token=None))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<s>", "</s>", "<pad>"]
    trainer = trainers.BpeTrainer(
        vocab_size=512, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    lines = [" ".join(rng.choices(WORDS, k=16)) for _ in range(100)]
    tokenizer.train_from_iterator(lines, trainer)
    tokenizer.add_tokens([f" t{number}" for number in range(vocabulary - tokenizer.get_vocab_size())])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>")
    fast.chat_template = TEMPLATE
    fast.save_pretrained(folder)
    return len(fast)


def make_model(folder: Path, hidden: int, layers: int, vocabulary: int) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(7)
    heads = max(2, hidden // 64)
    shape = LlamaConfig(
        vocab_size=vocabulary, hidden_size=hidden, intermediate_size=64 * (hidden * 8 // 3 // 64),
        num_hidden_layers=layers, num_attention_heads=heads, num_key_value_heads=heads // 2,
        max_position_embeddings=4096, bos_token_id=0, eos_token_id=1, pad_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    LlamaForCausalLM(shape).to(torch.float32).save_pretrained(folder)


def main() -> int:
    os.environ["HF_HUB_OFFLINE"] = "1"
    parser = argparse.ArgumentParser(description="A tiny language model of random weights.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--hidden", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--vocabulary", type=int, default=4096)
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    size = make_tokenizer(args.folder, args.vocabulary)
    make_model(args.folder, args.hidden, args.layers, max(size, args.vocabulary))
    return 0


if __name__ == "__main__":
    sys.exit(main())
