"""Who may ask, and who may act: FastAPI dependencies that refuse with 401 or 403."""

import base64
import hmac
import ipaddress
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import HTTPException, Request

# No `from __future__ import annotations` here: FastAPI reads the annotations of the inner functions as they are.
Guard = Callable[..., Any]


def nobody() -> str:
    """Who acts where nobody may."""
    raise HTTPException(403, "this page only reads")


def no_token() -> None:
    """Who sends alerts where no token is set."""
    raise HTTPException(403, "alerts are taken only with a token: set SLOTUNE_TOKEN here and give it to the sender")


def same_site(request: Request) -> None:
    """A browser that was led here by another site carries the person's login with it: such a form is refused."""
    site, origin = request.headers.get("sec-fetch-site"), request.headers.get("origin")
    host = request.headers.get("host", "")
    foreign = site not in (None, "same-origin") or (origin is not None and urlsplit(origin).netloc != host)
    if foreign:
        raise HTTPException(403, "the form was sent by another site")


def whoever(name: str) -> Callable[[], str]:
    """Who acts where the page knows no persons: whoever started it, or holds its token."""

    def who() -> str:
        return name

    return who


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach the address."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def with_token(token: str) -> Callable[..., Any]:
    """A guard: `Authorization: Bearer TOKEN`, or a browser's login with any name and the token as password."""
    def shown(header: str) -> str:
        kind, _, value = header.partition(" ")
        if kind.lower() == "bearer":
            return value.strip()
        try:
            return base64.b64decode(value, validate=True).decode().partition(":")[2] if kind.lower() == "basic" else ""
        except ValueError:
            return ""

    def guard(request: Request) -> None:
        if not hmac.compare_digest(shown(request.headers.get("authorization", "")).encode(), token.encode()):
            raise HTTPException(401, "a token is needed", {"WWW-Authenticate": 'Basic realm="slotune"'})

    return guard


def from_here(port: int) -> Callable[..., Any]:
    """A guard for loopback: another site that a browser on this machine shows must not read through its name."""
    def guard(request: Request) -> None:
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        if not is_loopback(host):
            raise HTTPException(403, f"ask for http://127.0.0.1:{port}/: the name in the address is not this machine's")

    return guard
