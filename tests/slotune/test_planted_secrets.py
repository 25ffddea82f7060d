"""Secrets planted wherever a connection can hold one, and looked for wherever slotune writes or shows anything."""

from __future__ import annotations

import base64
import contextlib
import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from fastapi.testclient import TestClient
from typer.testing import CliRunner

from slotune.cli import build_app
from slotune.compose import build
from slotune.connections import EnvironmentConnections
from slotune.views.reading import Reading
from slotune.web.app import create_app
from tests.fakes.actuators import serving
from tests.fakes.reports import report
from tests.fakes.world import KeptMails, World, WorldSource
from tests.tuning.loop.test_secrets import SERVICES
from tuning import notifiers
from tuning.channel_settings import ChannelSettings
from tuning.errors import ConfigError, SlotuneError
from tuning.ledger import SqlLedger
from tuning.loop import reconcile, tell, watch
from tuning.loop.once import tune
from tuning.notifiers.settings import MailSettings
from tuning.query import Query
from tuning.report import render
from tuning.services_yaml import loads

MAIL = MailSettings(to=("oncall@example.com",))
SECRET = "pl@nted/s3cret?#x"
QUOTED = quote(SECRET, safe="")


def as_json(**fields: Any) -> Callable[[str], str]:
    return lambda at: json.dumps({"conn_type": "http", "host": at, **fields})


PLACES: dict[str, Callable[[str], str]] = {
    "user and password of an address": lambda at: f"http://user:{QUOTED}@{at}",
    "the query of an address": lambda at: f"http://{at}/?token={QUOTED}",
    "a password in JSON": as_json(login="user", password=SECRET),
    "a token in the extra": as_json(extra={"token": SECRET}),
    "a header in the extra": as_json(extra={"headers": {"X-Api-Key": SECRET, "Cookie": f"session={SECRET}"}}),
    "a header as Airflow keeps it": as_json(extra=json.dumps({"Authorization": f"Bearer {SECRET}"})),
    "a host that is an address": lambda at: json.dumps({"conn_type": "http", "host": f"http://user:{QUOTED}@{at}"}),
    "an extra that nothing reads": as_json(extra={"api-tokn": SECRET, "passwrod": SECRET}),
    "an address that cannot be read": lambda at: f"http://user:{SECRET}@{at}",
}
SPELLINGS = (SECRET, QUOTED, json.dumps(SECRET)[1:-1], "s3cret", base64.b64encode(f"user:{SECRET}".encode()).decode())


def repeats(handler: BaseHTTPRequestHandler) -> None:
    """A server that answers with what it was sent, as proxies' error pages do."""
    said = json.dumps({"error": str(handler.headers), "message": str(handler.headers), "status": "Failure"}).encode()
    handler.send_response(403)
    handler.send_header("Content-Length", str(len(said)))
    handler.end_headers()
    handler.wfile.write(said)


CASES = [(place, "repeats what it is sent") for place in PLACES]
CASES += [(place, "is down") for place in ("user and password of an address", "a token in the extra")]


@contextlib.contextmanager
def server(how: str) -> Iterator[str]:
    """host:port of what the connections lead to."""
    if how == "is down":
        yield "127.0.0.1:1"
    else:
        with serving(repeats) as url:
            yield url.removeprefix("http://")


@pytest.fixture
def at(request: pytest.FixtureRequest) -> Iterator[str]:
    with server(request.param) as place:
        yield place


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("place", "at"), CASES, indirect=["at"])
def test_no_secret_is_written_or_shown(
    place: str,
    at: str,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    caplog.set_level(logging.DEBUG)
    ledger_url = f"sqlite:///{tmp_path / 'ledger.sqlite'}"
    environment = {f"SLOTUNE_CONN_{name}": PLACES[place](at) for name in ("SLOTUNE_PROMETHEUS", "RANKER_CONTROL", "CLUSTER")}
    environment["SLOTUNE_CONN_SMTP_DEFAULT"] = f"smtp://user:{QUOTED}@127.0.0.1:1?timeout=1"
    (tmp_path / "services.yaml").write_text(SERVICES)
    files = {"SLOTUNE_LEDGER_URL": ledger_url, "SLOTUNE_CONFIG": str(tmp_path / "services.yaml")}
    for name, value in (environment | files).items():
        monkeypatch.setenv(name, value)
    said = _said_by_the_loop(environment, ledger_url)
    said |= {"log": "\n".join(f"{r.getMessage()} {r.exc_text or ''} {r.exc_info}" for r in caplog.records)}
    for command in (["check"], ["check", "--live"], ["changes"], ["incidents"], ["review"], ["plan", "--service", "ranker"],
                    ["signals", "ranker"]):  # fmt: skip
        ran = CliRunner().invoke(build_app(command), command)
        said[" ".join(command)] = f"{ran.output} {ran.exception}"
    assert len(said["ledger"]) > 500 and len(said["page /"]) > 500 and "ranker" in said["mails"]
    found = [(where, text[max(text.find(s) - 90, 0) :][:150]) for where, text in said.items() for s in SPELLINGS if s in text]
    assert found == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("at", ["repeats what it is sent", "is down"], indirect=True)
@pytest.mark.parametrize(
    ("kind", "address"),
    [
        ("apprise", "apprise+json://user:{secret}@{at}/{secret}"),
        ("alertmanager", "http://user:{secret}@{at}/{secret}"), ("smtp", "smtp://user:{secret}@{at}?timeout=1&disable_tls=true"),
    ],
)  # fmt: skip
def test_no_message_that_cannot_be_sent_tells_a_secret(
    kind: str, address: str, at: str, caplog: pytest.LogCaptureFixture
) -> None:
    """The address of a chat's webhook is itself the secret; and a server may repeat what it is sent."""
    caplog.set_level(logging.DEBUG)
    said = []
    for secret in (QUOTED, "TOKENs3cretTOKENs3cret"):
        connections = EnvironmentConnections({"SLOTUNE_CONN_CHAT": address.format(secret=secret, at=at)})
        made = notifiers.get(kind)(ChannelSettings.model_validate({"name": "chat", "by": kind, "connection": "chat"}), MAIL, connections)
        try:
            made.send(render(report()))
        except SlotuneError as error:
            said.append(f"{error} {error.__cause__}")
    said += [f"{r.getMessage()} {r.exc_text or ''} {r.exc_info}" for r in caplog.records]
    assert said
    assert [text for text in said for spelling in (*SPELLINGS, "TOKENs3cret") if spelling in text] == []


def _said_by_the_loop(environment: dict[str, str], ledger_url: str) -> dict[str, str]:
    """One sweep and its run on the real clients, with metrics of a slow service where Prometheus gives none."""
    said: dict[str, str] = {}
    settings, mails = loads(SERVICES), KeptMails()
    world = World(qps=lambda t: 60.0 if t < 120 else 180.0)
    world.wait(240)
    connections = EnvironmentConnections(environment)
    try:
        parts = build(settings, connections, sleep=lambda _s: None)
        watch.pull_metrics(parts, world.now())
    except SlotuneError as error:
        said["pull_metrics"] = str(error)
    slow = replace(_with_world(settings, connections, world), notifiers=[mails])
    xcoms = [sweep := watch.detect_anomalies(slow, watch.pull_metrics(slow, world.now()))]
    for wanted in watch.open_incidents(slow, sweep):
        xcoms.append(tune(slow, wanted, world.now, world.wait_until))
    reconcile.reconcile_all(slow, world.now(), alive=lambda _run: False)
    tell.send_unsent(slow, world.now())
    ledger = SqlLedger.open(ledger_url)
    said["ledger"] = "\n".join(record.model_dump_json() for record in ledger.find(Query()))
    said["mails"] = "\n".join(mail.subject + mail.text + mail.html for mail in mails.mails)
    said["xcom"] = "\n".join(value.model_dump_json() for value in xcoms)
    client = TestClient(create_app(lambda: Reading(ledger, ledger.get_blob, settings, world.now())))
    told = [f"/incidents/{incident.id}" for incident in watch.open_incidents_of(ledger, world.now())]
    for path in ("/", "/incidents", "/changes", "/effects", "/review", "/health", "/services/ranker", "/metrics", *told):
        said[f"page {path}"] = client.get(path).text
    return said


def _with_world(settings: Any, connections: EnvironmentConnections, world: World) -> Any:
    """The real parts on the world's metrics; where a connection cannot even be read, Prometheus' own is left out."""
    good = {name: text for name, text in connections._environment.items() if "PROMETHEUS" not in name}
    readable = EnvironmentConnections({**good, "SLOTUNE_CONN_SLOTUNE_PROMETHEUS": "http://127.0.0.1:1"})
    return replace(build(settings, readable, sleep=lambda _s: None), source=WorldSource(world))


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://u:p@{}@127.0.0.1:1/x", "postgresql://u:p@{}/y@127.0.0.1:1/x", "postgresql://u@{}:p@127.0.0.1:1/x",
        "postgresql://u:{}@127.0.0.1:1/x", "postgresql://u@127.0.0.1:1/x?password={}", "mysql://u:{}@127.0.0.1/x",
        "postgresql://u:p@{}?x@127.0.0.1:1/x", "postgresql:/u:{}@127.0.0.1/x", "u:{}@127.0.0.1/x",
    ],
)  # fmt: skip
def test_the_ledgers_password_stays_out_of_its_messages(url: str) -> None:
    with pytest.raises(SlotuneError) as caught:
        SqlLedger.open(url.format("s3cret"), timeout_s=1)
    assert "s3cret" not in str(caught.value)


def test_a_ledgers_url_with_a_bare_at_says_what_to_write() -> None:
    with pytest.raises(ConfigError, match="write @ as %40"):
        SqlLedger.open("postgresql://u:p@ss@127.0.0.1:1/x")
