"""`slotune serve`: the page and /metrics without Airflow, on loopback unless a token guards it."""

from __future__ import annotations

import os
import time
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from detection.errors import ConfigError
from slotune.person import person

if TYPE_CHECKING:
    from slotune.views.reading import Reading
    from slotune.web.alerts_in import Taken
    from tuning.model import Record
    from tuning.settings import Settings

TOKEN = "SLOTUNE_TOKEN"  # noqa: S105 (the name of a variable)


def register(app: typer.Typer) -> None:
    @app.command()
    def serve(
        host: str = typer.Option("127.0.0.1", help=f"The address to listen on; beyond loopback {TOKEN} has to be set."),
        port: int = typer.Option(8642, min=0, max=65_535, help="The port to listen on."),
    ) -> None:
        """Serve the page (fleet, incidents, changes, health, what people say) and /metrics. Ctrl-C ends it."""
        import uvicorn

        from slotune.web.app import create_app
        from slotune.web.guards import from_here, is_loopback, no_token, whoever, with_token

        token = os.environ.get(TOKEN, "")
        if not token and not is_loopback(host):
            raise ConfigError(f"{host} can be reached by others: set {TOKEN} to a secret that readers have to show")
        guards = [with_token(token)] if token else [from_here(port)]
        typer.echo(f"slotune is served at http://{host}:{port}/ (Ctrl-C ends it)")
        app = create_app(
            reading,
            may_read=guards,
            write=write,
            who=whoever(person()),
            ahead=True,
            take=take if token else None,
            may_alert=with_token(token) if token else no_token,
        )
        uvicorn.run(app, host=host, port=port, log_level="warning")


def reading() -> Reading:
    """What the page reads now: the ledger and the settings that the environment names."""
    from slotune.compose import open_ledger
    from slotune.places import config_path, ledger_url
    from slotune.views.reading import Reading

    ledger, config = open_ledger(ledger_url()), Path(config_path())
    return Reading(ledger, ledger.get_blob, _settings(config, _version(config)), time.time())


@lru_cache(maxsize=1)
def _settings(config: Path, version: tuple[int, int] | None) -> Settings:
    """The settings of this version of the file: a thousand services take seconds to read, and a page is asked often."""
    from slotune.compose import load_settings

    return load_settings(config)


def _version(config: Path) -> tuple[int, int] | None:
    try:
        stat = config.stat()
    except OSError:  # whoever reads it says what is wrong
        return None
    return stat.st_mtime_ns, stat.st_size


def write(record: Record) -> bool:
    """Puts a record into the ledger that the environment names."""
    from slotune.compose import open_ledger
    from slotune.places import ledger_url

    return open_ledger(ledger_url()).put(record)


def take(body: bytes) -> Taken:
    """What a webhook's body leads to in the ledger that the environment names."""
    from slotune.compose import open_ledger
    from slotune.places import ledger_url
    from slotune.web.alerts_in import Taken
    from tuning.alerts import received
    from tuning.loop import outside

    now = reading()
    services = tuple(now.services.values())
    try:
        found = received(body, services, now.now_s)
    except ConfigError as error:
        return Taken(400, f"Nothing was taken: {error}.")
    if found.ignored and not found.alerts:
        return Taken(422, f"Nothing was taken: {found.ignored[0]}.", ignored=found.ignored)
    ledger = open_ledger(ledger_url())
    news, incidents = outside.take(ledger, services, now.settings.detection, found.alerts, now.now_s)
    said = f"{news} of {len(found.alerts)} alerts are new; {len(incidents)} incidents rest on them."
    return Taken(200, said, news, incidents, found.ignored)
