"""`slotune serve`: the page and /metrics without Airflow, on loopback unless a token guards it."""

from __future__ import annotations

import hmac
import ipaddress
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer

from detection.errors import ConfigError

if TYPE_CHECKING:
    from slotune.views.reading import Reading

TOKEN = "SLOTUNE_TOKEN"  # noqa: S105 (the name of a variable)


def register(app: typer.Typer) -> None:
    @app.command()
    def serve(
        host: str = typer.Option("127.0.0.1", help=f"The address to listen on; beyond loopback {TOKEN} has to be set."),
        port: int = typer.Option(8642, min=0, max=65_535, help="The port to listen on."),
    ) -> None:
        """Serve the page (fleet, incidents, changes, health) and /metrics. Reads only; Ctrl-C ends it."""
        import uvicorn

        from slotune.web.app import create_app

        token = os.environ.get(TOKEN, "")
        if not token and not is_loopback(host):
            raise ConfigError(f"{host} can be reached by others: set {TOKEN} to a secret that readers have to show")
        guards = [with_token(token)] if token else [from_here(port)]
        typer.echo(f"slotune is served at http://{host}:{port}/ (Ctrl-C ends it)")
        uvicorn.run(create_app(reading, may_read=guards), host=host, port=port, log_level="warning")


def reading() -> Reading:
    """What the page reads now: the ledger and the settings that the environment names."""
    from slotune.compose import load_settings, open_ledger
    from slotune.places import ledger_url
    from slotune.views.reading import Reading

    ledger = open_ledger(ledger_url())
    return Reading(ledger, ledger.get_blob, load_settings(), time.time())


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
    import base64

    from fastapi import HTTPException, Request

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

    # FastAPI reads annotations by name, and here they are local.
    guard.__annotations__ = {"request": Request, "return": None}
    return guard


def from_here(port: int) -> Callable[..., Any]:
    """A guard for loopback: another site that a browser on this machine shows must not read through its name."""
    from fastapi import HTTPException, Request

    def guard(request: Request) -> None:
        host = request.headers.get("host", "").rsplit(":", 1)[0]
        if not is_loopback(host):
            raise HTTPException(403, f"ask for http://127.0.0.1:{port}/: the name in the address is not this machine's")

    guard.__annotations__ = {"request": Request, "return": None}
    return guard
