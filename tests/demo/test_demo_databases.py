"""The demo's own PostgreSQL and Redis: they serve, as ordinary users, and leave nothing behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import psutil
import pytest

from demo import story
from demo.celery_airflow import CeleryAirflow
from demo.databases import PostgreSql, Redis
from demo.processes import DemoError
from tuning.ledger import SqlLedger
from tuning.model import Record

RECORD = Record(id="r", kind="hold", service="s", parent_id=None, incident_id=None, at_s=1.0, body={"reason": "x"})


def children() -> list[psutil.Process]:
    return psutil.Process().children()


@pytest.mark.server
def test_a_ledger_on_the_demos_postgresql_is_read_by_its_address(tmp_path: Path):
    others = children()  # another test's server may run in this process
    server = PostgreSql(tmp_path / "postgresql.log")
    url = f"postgresql+psycopg2://{server.address('slotune')}"
    assert story.read_ledger(url) == []  # not there yet: no traceback for the demo
    try:
        server.start()
        server.create("slotune")
        if os.geteuid() == 0:
            owners = {p.username() for p in children() if p not in others}
            assert owners and "root" not in owners
        ledger = SqlLedger.open(url)
        ledger.put(RECORD)
        assert [(e.kind, e.body["reason"]) for e in story.read_ledger(url)] == [("hold", "x")]
        held = ledger  # a client that stays must not delay the stop
        server.stop()
        assert held is not None and not [p for p in children() if p not in others]
    finally:
        server.stop()
    assert not server._folder.exists()
    with pytest.raises(DemoError, match="PostgreSQL ended"):
        server.check()


@pytest.mark.server
def test_the_demos_redis_answers_and_stops(tmp_path: Path):
    server = Redis(tmp_path / "redis.log")
    try:
        server.start()
        port = int(server.url.rsplit(":", 1)[1].split("/")[0])
        with socket.create_connection(("127.0.0.1", port), 5.0) as peer:
            peer.sendall(b"SET a b\r\nGET a\r\n")
            assert b"+OK" in peer.recv(64)
    finally:
        server.stop()
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", port), 1.0).close()
    assert not server._folder.exists()


@pytest.mark.server
def test_celery_settings_point_at_the_servers_before_they_run(tmp_path: Path):
    engine = CeleryAirflow(tmp_path / "airflow", tmp_path, tmp_path / "logs" / "airflow.log", {"OWN": "1"})
    env = engine._env
    assert env["OWN"] == "1" and env["AIRFLOW__CORE__EXECUTOR"] == "CeleryExecutor"
    assert env["SLOTUNE_LEDGER_URL"] == engine.ledger_url
    assert env["AIRFLOW__DATABASE__SQL_ALCHEMY_CONN"].rsplit("/", 1)[0] == engine.ledger_url.rsplit("/", 1)[0]
    assert env["AIRFLOW__CELERY__BROKER_URL"] == engine.redis.url
    assert "127.0.0.1" in engine._command("api-server")
    engine.stop()  # never started: nothing to stop, and the folders are gone
    assert not engine.postgresql._folder.exists() and not engine.redis._folder.exists()
