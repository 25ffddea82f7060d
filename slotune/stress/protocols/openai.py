"""Streamed completions as OpenAI's API has them (vLLM, TGI, SGLang, llama.cpp): POST /v1/completions, or the chat's
with --path /v1/chat/completions. Measured are the time to the first token, between tokens, and to the end.

Prompts are of random words, each request its own, so that no prefix cache answers for the model.
"""

from __future__ import annotations

import json
import random
import time
from collections.abc import Sequence
from typing import Any

from detection.errors import ConfigError
from slotune.stress.protocols._port import Answer, Ask, Reader, Talk, bodies, request

_PATH = "/v1/completions"
_WORDS = ("light", "water", "stone", "river", "paper", "window", "garden", "copper", "signal", "engine", "harbor")


class OpenAi:
    """One request, many tokens."""

    name = "openai"
    objectives: tuple[str, ...] = ("ttft_p95_ms", "itl_p95_ms", "e2e_p95_ms", "p95_ms")
    streams = True

    async def requests(self, ask: Ask, talk: Talk) -> Sequence[bytes]:
        path = ask.path or _PATH
        if ask.bodies:
            return [request(ask, "POST", path, _streaming(body)) for body in bodies(ask)]
        if not ask.model:
            raise ConfigError("with --protocol openai give --model, the name under which the model is served")
        rng = random.Random(ask.seed)
        return [request(ask, "POST", path, _wish(ask, path, rng)) for _ in range(ask.count)]

    def reader(self) -> Reader:
        return Stream()

    def check(self, answer: Answer) -> str | None:
        stream = Stream()
        stream.feed(answer.body)
        if not stream.times:
            return "its answer is no stream of completions (no `data:` line with a token)"
        return None if stream.whole else "its stream does not end with [DONE]"


class Stream:
    """Server-sent events; a token is an event whose choice has text. whole: [DONE] came, and no error."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.whole = False
        self._failed = False
        self._rest = b""

    def feed(self, piece: bytes) -> None:
        now = time.monotonic()
        lines = (self._rest + piece).split(b"\n")
        self._rest = lines.pop()
        for line in lines:
            if not line.startswith(b"data:"):
                continue
            data = line[5:].strip()
            if data == b"[DONE]":
                self.whole = not self._failed
            else:
                self._event(data, now)

    def _event(self, data: bytes, now: float) -> None:
        try:
            event: Any = json.loads(data)
            if "error" in event:
                self._failed, self.whole = True, False
            elif any(_said(choice) for choice in event.get("choices") or ()):
                self.times.append(now)
        except (ValueError, TypeError, AttributeError, RecursionError):
            self._failed = True


def _said(choice: Any) -> bool:
    delta = choice.get("delta") or {}
    return bool(choice.get("text") or delta.get("content") or delta.get("reasoning_content"))


def _wish(ask: Ask, path: str, rng: random.Random) -> bytes:
    prompt = " ".join(rng.choice(_WORDS) for _ in range(ask.words))
    said: dict[str, object] = (
        {"messages": [{"role": "user", "content": prompt}]}
        if path.endswith("/chat/completions")
        else {"prompt": prompt}
    )
    return json.dumps({"model": ask.model, **said, "max_tokens": ask.max_tokens, "stream": True}).encode()


def _streaming(body: bytes) -> bytes:
    """The body of a person with `stream` on: without it nothing could be measured token by token."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise ConfigError("the file of --body is no JSON object (after its {{places}} were filled in)")
    return json.dumps({**document, "stream": True}).encode()
