"""The port of a protocol, and what all of them share: prepared HTTP requests and their bodies."""

from __future__ import annotations

import json
import random
import re
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol as Port

from detection.errors import ConfigError
from detection.http_access import Address

_PLACE = re.compile(rb"\{\{(number|random|uuid)\}\}")


@dataclass(frozen=True)
class Ask:
    """What is to be sent. path, model: "" where the protocol's own. bodies: of --body, () where it makes its own.

    words, max_tokens: of a prompt that it makes itself. count: different requests, prepared beforehand.
    """

    address: Address
    path: str = ""
    model: str = ""
    bodies: tuple[bytes, ...] = ()
    headers: tuple[tuple[str, str], ...] = ()
    words: int = 100
    max_tokens: int = 64
    count: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Answer:
    """One whole answer. head: status line and header fields as they came."""

    status: int
    head: bytes
    body: bytes


Talk = Callable[[bytes], Awaitable[Answer]]
"""Sends one prepared request; ConfigError with a sentence where nothing answers."""


class Reader(Port):
    """Reads one streamed answer. times: when each token came (monotonic seconds). whole: it came to its end, without an
    error."""

    times: list[float]
    whole: bool

    def feed(self, piece: bytes) -> None: ...


class Protocol(Port):
    """objectives: the promises that can be measured, the main one first. streams: whether answers are read token by
    token."""

    name: str
    objectives: tuple[str, ...]
    streams: bool

    async def requests(self, ask: Ask, talk: Talk) -> Sequence[bytes]:
        """Whole HTTP requests to draw from. ConfigError where they cannot be made."""
        ...

    def reader(self) -> Reader: ...

    def check(self, answer: Answer) -> str | None:
        """Why a 2xx answer is none of this protocol; None where it is one."""
        ...


def request(
    ask: Ask,
    method: str,
    path: str,
    body: bytes = b"",
    kind: str = "application/json",
    more: Sequence[tuple[str, str]] = (),
) -> bytes:
    """A whole HTTP/1.1 request. more: further header fields."""
    fields = {"Host": ask.address.origin, "User-Agent": "slotune-stress", "Accept": "*/*", **dict(ask.headers)}
    if body or method == "POST":
        fields |= {"Content-Type": kind, "Content-Length": str(len(body))}
    head = "".join(f"{name}: {value}\r\n" for name, value in {**fields, **dict(more)}.items())
    return f"{method} {ask.address.path}{path} HTTP/1.1\r\n{head}\r\n".encode("latin-1") + body


def bodies(ask: Ask) -> Iterator[bytes]:
    """`count` bodies from those of --body, one after the other, with their places filled in."""
    rng = random.Random(ask.seed)
    places = any(_PLACE.search(body) for body in ask.bodies)
    for number in range(max(ask.count, len(ask.bodies)) if places else len(ask.bodies)):
        yield _PLACE.sub(lambda m, n=number: _filled(m[1], n, rng), ask.bodies[number % len(ask.bodies)])  # type: ignore[misc]


def _filled(place: bytes, number: int, rng: random.Random) -> bytes:
    if place == b"number":
        return str(number).encode()
    if place == b"random":
        return f"{rng.random():.6f}".encode()
    return str(uuid.UUID(int=rng.getrandbits(128))).encode()


def read_bodies(file: Path) -> tuple[bytes, ...]:
    """The bodies of a file: one, or of a .jsonl file one a line. ConfigError where it cannot be read or is empty."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise ConfigError(f"cannot be read: {error.strerror or error}", where=str(file)) from error
    found = tuple(line for line in data.splitlines() if line.strip()) if file.suffix == ".jsonl" else (data.strip(),)
    if not found or not found[0]:
        raise ConfigError("is empty: there is nothing to send", where=str(file))
    return found


def is_json(body: bytes) -> bool:
    try:
        json.loads(body)
    except (ValueError, RecursionError):
        return False
    return True
