"""Small HTTP calls of the supervisor (JSON in, JSON out), on the standard library."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from typing import Any

_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # loopback never goes through a proxy


def call(
    url: str, body: object = None, *, token: str | None = None, timeout_s: float = 5.0, method: str | None = None
) -> Any:
    """GET, POST when there is a body, or `method`. Raises OSError (HTTPError is one) when there is no good answer."""
    headers = {"Content-Type": "application/json", "Accept": "application/json"}
    if token:
        headers["Authorization"] = f"Bearer {token}"
    data = None if body is None else json.dumps(body).encode()
    with _OPENER.open(urllib.request.Request(url, data, headers, method=method), timeout=timeout_s) as reply:
        text = reply.read()
    try:
        return json.loads(text)
    except ValueError:
        return text.decode(errors="replace")


def answers(url: str, timeout_s: float = 1.0) -> bool:
    """Whether a GET is answered with a 2xx."""
    try:
        call(url, timeout_s=timeout_s)
    except (OSError, ValueError):
        return False
    return True
