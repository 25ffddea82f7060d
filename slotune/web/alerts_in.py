"""`POST /alerts`: what Alertmanager and Grafana send, answered with what was made of it or with what is wrong."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from fastapi import Request
from fastapi.responses import JSONResponse

MOST_BYTES = 1 << 20


@dataclass(frozen=True)
class Taken:
    """status: of the answer. said: a sentence. news: alerts that said something new. incidents: what they are evidence
    of. ignored: a sentence about each alert that is about no service."""

    status: int
    said: str
    news: int = 0
    incidents: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()

    def answer(self) -> JSONResponse:
        body = {"said": self.said, "news": self.news, "incidents": self.incidents, "ignored": self.ignored[:20]}
        return JSONResponse(body, status_code=self.status)


Take = Callable[[bytes], Taken]


async def body_of(request: Request) -> bytes | None:
    """The body; None, and no more of it is read, where it is too large."""
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > MOST_BYTES:
            return None
    return bytes(data)


TOO_LARGE = Taken(413, f"The body is larger than {MOST_BYTES} bytes: let the sender group less (max_alerts).")
